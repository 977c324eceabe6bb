"""Recurrent: layer and batch norm at each step of a sequence."""
