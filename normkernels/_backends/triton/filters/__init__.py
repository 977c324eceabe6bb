"""Filters: weight norm and weight standardisation, over the rows of a weight."""
