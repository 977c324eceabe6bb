"""Rows: layer norm and RMS norm, over values that lie side by side."""
