"""Streaming norm: the rule between the channels' two sweeps, and backward a term of its own."""
