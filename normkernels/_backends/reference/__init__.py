"""Plain PyTorch: each paper's formula and its derivative in closed form; every other backend is measured against it."""
