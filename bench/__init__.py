"""``python -m bench``: every backend against a copy of the same bytes, and against what a user would run instead."""
