"""Strided rows: layer norm over the channels of each pixel, whose values lie a stride apart."""
