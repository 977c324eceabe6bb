"""Weight normalisation in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels._backends.reference._rows import compute_dtype, power_of_two


def weight_norm_ref(v, g):
    """w = g v / |v|, and 0 where v is 0: a filter in each row of v (M, N) (Salimans & Kingma 2016, eq. 2)."""
    filters = v.to(compute_dtype(v))
    filters = filters * power_of_two(filters, 1)  # which changes no direction
    squares = filters.square().sum(1)
    inverse = torch.where(squares > 0, torch.where(squares > 0, squares, 1).rsqrt(), 0)
    return (g.to(inverse.dtype) * inverse).unsqueeze(1) * filters


def inverse(norm):
    """1 / norm, and 0 where it is 0."""
    return torch.where(norm > 0, 1 / norm, 0)


def length(filters):
    """|v| of each filter, (M, 1)."""
    scale = power_of_two(filters, 1)
    return torch.linalg.vector_norm(filters * scale, dim=1, keepdim=True) / scale


def weight_norm_fwd(a):
    """v, w: (M, N); g, norm: (M,)."""
    v = a.v.to(a.norm.dtype)
    a.norm.copy_(length(v).squeeze(1))
    a.w.copy_(v * (a.g.to(v.dtype) * inverse(a.norm)).unsqueeze(1))


def weight_norm_bwd(a):
    """dg = <dw, v> / |v|, dv = g / |v| (dw - v <dw, v> / |v|^2); both are 0 where v is."""
    dtype = a.norm.dtype
    r, dw, g = inverse(a.norm), a.dw.to(dtype), a.g.to(dtype)
    filters = a.v.to(dtype) * r.unsqueeze(1)
    along = (dw * filters).sum(1)
    if a.dg is not None:
        a.dg.copy_(along)
    a.dv.copy_((g * r).unsqueeze(1) * (dw - filters * along.unsqueeze(1)))


def weight_norm_project(weights):
    """w = w / |w| in place, for every filter (row) of every contiguous (M, N) tensor."""
    for w in weights:
        w.copy_(w * inverse(length(w.to(compute_dtype(w)))))
