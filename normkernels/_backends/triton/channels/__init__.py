"""Channels: batch, group and instance norm; batch renorm, streaming norm and online norm build on them."""
