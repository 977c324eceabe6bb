"""An interpreter of PTX: what Triton compiles for an H100, on CPU tensors, with the checks that a GPU leaves out."""
