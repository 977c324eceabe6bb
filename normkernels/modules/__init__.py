"""One file per normaliser: its torch.nn-like modules."""
