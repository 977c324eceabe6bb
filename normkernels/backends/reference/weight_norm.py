"""Weight normalisation in plain PyTorch: the formula, and its forward and backward as the ops want them."""

import torch

from normkernels.backends.reference._rows import compute_dtype, power_of_two


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


def weight_norm_fwd(v, g, w, norm):
    """v, w: (M, N); g, norm: (M,)."""
    norm.copy_(length(v.to(norm.dtype)).squeeze(1))
    w.copy_(v.to(norm.dtype) * (g.to(norm.dtype) * inverse(norm)).unsqueeze(1))


def weight_norm_bwd(dw, v, g, norm, dv, dg):
    """dg = <dw, v> / |v|, dv = g / |v| (dw - v <dw, v> / |v|^2); both are 0 where v is."""
    r, d, filters = inverse(norm), dw.to(norm.dtype), v.to(norm.dtype)
    filters = filters * r.unsqueeze(1)
    along = (d * filters).sum(1)
    if dg is not None:
        dg.copy_(along)
    dv.copy_((g.to(norm.dtype) * r).unsqueeze(1) * (d - filters * along.unsqueeze(1)))


def weight_norm_project(weights):
    """w = w / |w| in place, for every filter (row) of every contiguous (M, N) tensor."""
    for w in weights:
        w.copy_(w * inverse(length(w.to(compute_dtype(w)))))
