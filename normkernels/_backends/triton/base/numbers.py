"""Arithmetic of launch sizes. Triton's own, which kernels can call too, takes 1.4 us a call on the host."""


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The least power of 2 that is at least n; n is positive."""
    return 1 << (n - 1).bit_length()
