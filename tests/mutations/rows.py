"""Layer norm, RMS norm and layer norm of rows whose units lie a stride apart: Python and Triton."""

from mutations._tests import (
    ADAPTED,
    CLUSTERS,
    EAGER,
    EDGES,
    FAR_ROWS,
    GATED,
    HEADS,
    INLINED,
    LONG_ROWS,
    NATIVE,
    ODD_ROWS,
    ROWS,
    STRIDED_ROWS,
    WITNESS,
)

TABLE = {
    ("triton", ROWS): [
        ("run = t.stride(-2), t.shape[-2], t.stride(-3)", "run = t.stride(-2), t.shape[-2], t.stride(-2)"),
        ("at += run % stride.side *", "at += run *"),
        ("at += run // stride.side *", "at += run *"),
        ("x = tl.where(mask, x - mean, 0.0)", "x = x - mean"),
        ("for start in range(0, P, BLOCK_P):", "for start in range(0, 1, BLOCK_P):"),
        ("x = tl.where(columns(i, FORM) < N, x, 0.0)", "x = x + 0.0"),
        ("        p += number(OFFSET, dtype)", "        p += 0.0"),
        ("        total += x[i] * y[i]", "        total += x[i]"),
    ],
    ("triton/rows_sizes", CLUSTERS): [
        ("1 if unaligned(N, itemsize) or itemsize == 8 else most", "most"),
        ("max(needed, min(most, fewest)) if needed <= most", "needed if needed <= most"),
        ('{"num_ctas": num_ctas} if num_ctas > 1 else {}', "{}"),
    ],
    ("triton/rows_forward", ROWS): [
        ("tl.maximum(squares - rest * rest,", "tl.maximum(2 * squares - rest * rest,"),
        ("tl.rsqrt(var + number(EPS, var.dtype))", "tl.rsqrt(var)"),
        ("block -= which * each", "block -= 0"),
        ("weight = shifted(weight, which.to(tl.int64) * N)", "weight = weight"),
        ("tl.store(t.mean + rows, mean + rest,", "tl.store(t.mean + rows, rest,"),
        ("s = rounded(s, t.summed.dtype.element_ty).to(dtype)", "s = s.to(dtype)"),
    ],
    ("triton/rows_long_forward", LONG_ROWS): [
        ("PARTIAL += row * (2", "PARTIAL += 0 * (2"),
        ("x = minus(x, near, 0,", "x = minus(x, 0.0, 0,"),
    ],
    ("triton/rows_long_forward", ROWS): [
        ("tl.maximum(var - rest * rest, 0.0,", "tl.maximum(2 * var - rest * rest, 0.0,"),
        ("squares += tl.load(PARTIAL + tile,", "squares += 2 * tl.load(PARTIAL + tile,"),
        ("tl.rsqrt(var + number(EPS, var.dtype))", "tl.rsqrt(var)"),
        ("S = t.x if t.residual is None else t.summed", "S = t.x"),
    ],
    ("triton/rows_backward", ROWS): [
        ("dx = dx - mean_of[", "dx = dx - 0 * mean_of["),
        ("dx = dx + load_piece(", "dx = dx + 0 * load_piece("),
        ("tl.minimum(block + step, blocks - 1)", "tl.minimum(block + 0, blocks - 1)"),
        ("finalise(partial_w, partial_b,", "finalise(partial_b, partial_w,"),
        ("line = start * B + which", "line = start"),
        ("start -= which * each", "start -= 0"),
    ],
    ("triton/rows_turns", ROWS): [("gs = gs + (affine(du, w_here, None),)", "gs = gs + (du,)")],
    ("triton/rows_turns", ODD_ROWS): [
        ("tl.join(totals[2], totals[3])", "tl.join(totals[3], totals[2])"),
        ("here = here + (found[r * PIECES + i],)", "here = here + (found[i],)"),
        ("(block * FORM.TILES + r) * BLOCK_M", "(block + r) * BLOCK_M"),
    ],
    ("triton/rows_long_backward", LONG_ROWS): [
        ("if (low + BLOCK_N) % PART == 0 or low + BLOCK_N >= end:", "if (low + BLOCK_N) % PART == 0:"),
        ("for low in range(0, each, 4):", "for low in range(0, 4, 4):"),
        ("rows = ((blocks - 1 - i) * BLOCK_M", "rows = ((blocks - 1) * BLOCK_M"),
    ],
    ("triton/rows_long_backward", ODD_ROWS): [
        ("tl.maximum(blocks - 2 - i, 0)", "tl.maximum(blocks - 1 - i, 0)"),
        ("above = low + BLOCK_N", "above = low"),
    ],
    ("ops/rows", HEADS): [
        ("2 <= len(sizes) <= MOST_ROW_DIMS", "2 <= len(sizes) < MOST_ROW_DIMS"),
        ("_equal(t.stride(d), step * sizes[0])", "_equal(t.stride(d), step)"),
        ("return statically_known_true(a == b)", "return bool(a == b)"),
    ],
    ("reference/rows", ADAPTED): [
        ("grad.view(len(buffer), -1, grad.shape[1]).sum(1)", "grad.view(len(buffer), -1, grad.shape[1])[:, 0]"),
    ],
    ("modules/adapted", ADAPTED): [
        ("weight + offset if offset else weight", "weight"),
        ('"weight_offset": 1.0}', '"weight_offset": 0.0}'),
    ],
    ("ops/ragged", ADAPTED): [("if isinstance(t, Tensor) and t.dim() > dims:", "if False:")],
    ("reference/rows", WITNESS): [("dgate.copy_(dy * u *", "dgate.copy_(u *")],
    ("package/checks", GATED): [("if gate is not None and gate.dtype != input.dtype:", "if False:")],
    ("ops/ragged", GATED): [("not is_ragged(t) or t.shape != input.shape", "t.shape != input.shape")],
    ("triton/rows_tiles", ROWS): [
        ("dgate = dy.to(u.dtype) * u *", "dgate = u *"),
        ("du = du * activation(gate.to(rstd.dtype), ACT, SLOPE)", "du = du"),
        ("derivative(affine(xhat, w, b), ACT, SLOPE)", "derivative(affine(xhat, w, None), ACT, SLOPE)"),
    ],
    ("triton/rows_long_backward", ROWS): [
        ("dx = affine(du, w, None) - xhat * mean_gx", "dx = affine(du, w, None)"),
        ("dx = dx - mean_g", "dx = dx - 0 * mean_g"),
        ("g = affine(du, w, None)", "g = du"),
    ],
    ("triton", STRIDED_ROWS): [
        ("squares += squares_here + distance * move * low", "squares += squares_here"),
        ("dx = g - tl.sum(g, axis=0)[None, :] / N - xhat", "dx = g - xhat"),
        ("dx = (g - sum_g[None, :] / N - xhat", "dx = (g - xhat"),
        ("dx = dx + load_tile(", "dx = dx + 0 * load_tile("),
    ],
    ("reference", WITNESS): [
        ("g = g - g.mean(1, keepdim=True) -", "g = g - "),
        ("grad if dsummed is None else grad + dsummed", "grad"),
        ("+ eps * scale * scale)", ")"),
    ],
    ("reference/layer_norm.", WITNESS): [
        ("dweight, du * xhat)", "dweight, du)"),
    ],
    ("reference/rms_norm", WITNESS): [
        ("(g * xhat).mean(1", "(g * xhat).sum(1"),
    ],
    ("reference", f"{EDGES} -k reference"): [
        ("return z - rest, mean + rest", "return z, mean"),
        ("return 2.0 ** -torch.log2(peak)", "return 2.0 ** 0 * torch.log2(peak)"),
    ],
    ("ops/layer_norm_recipe", WITNESS): [
        ("weight, bias, gate, ctx.settings)[0], input", "weight, bias, gate, ctx.settings)[0], input.detach()"),
    ],
    ("ops/inlined", FAR_ROWS): [
        ("x - _beside(first.sum(dims) * (1 / max(prod(first.shape[-len(shape) :]), 1)), dims)", "x"),
        ("* share - mean * mean", "* share"),
        ("(near - _beside(mean, dims)) * _beside", "near * _beside"),
        ("var.clamp_min(0)", "var"),
    ],
    ("ops/layer_norm_2d", "tests/test_inlined.py -k pixels"): [
        ("t.movedim(1, -1).contiguous().movedim(-1, 1)", "t.contiguous()"),
    ],
    ("ops/inlined", INLINED): [
        ("x.numel() <= most", "x.numel() <= 1 << 16"),
        ("x.numel() <= most", "x.numel() <= 1 << 18"),
    ],
    ("ops/ways", INLINED): [
        ('if others[-1].backend is not None or input.device.type != "cpu":', "if False:"),
    ],
    ("modules/extras", "tests/test_modules.py -k construction"): [("if v != DEFAULTS[k]}", "}")],
    ("ops/layer_norm_recipe", EAGER): [
        ("empty(weight, ctx.needs_input_grad[2])", "empty(weight, ctx.needs_input_grad[3])")
    ],
    ("package", WITNESS): [("k * (1 + 3 * a * u * u)", "k * (1 + a * u * u)")],
    ("ops", EAGER): [
        ("dresidual = dx if ctx.needs_input_grad[1] else None", "dresidual = None"),
        ("rows.view(input.movedim(1, -1).shape).movedim(-1, 1)", "rows.view(input.shape)"),
    ],
    ("ops", WITNESS): [
        ("torch.float64 if input.dtype == torch.float64 else torch.float32", "torch.float32"),
    ],
    ("reference/rows", "tests/test_distributed.py -k sharding-2"): [
        ("added_up(z.sum(dims, keepdim=True))", "z.sum(dims, keepdim=True)"),
        ("z.numel() / max(total.numel(), 1)", "z.numel()"),
    ],
    ("modules", "tests/test_conversions.py"): [
        ("self.activation is None and self.weight_offset == 0", "self.activation is None"),
    ],
    ("ops", NATIVE): [
        ("t if n == 1 or t.stride(1) == 1 else t.contiguous()", "t"),
    ],
}
