"""Plain PyTorch: the formula of each paper, and its derivative in closed form. Every other backend is measured against it."""
