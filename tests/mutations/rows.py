"""Layer norm, RMS norm and layer norm of rows whose units lie a stride apart."""

from mutations._tests import ADAPTED, EAGER, EDGES, GATED, NARROW, NATIVE, ROWS, STRIDED_ROWS, WITNESS

TABLE = {
    ("triton", ROWS): [
        ("return 0 if t is None else t.stride(0)", "return 0 if t is None else t.shape[1]"),
        ("x = tl.where(mask, x - mean, 0.0)", "x = x - mean"),
        ("for start in range(0, P, BLOCK_P):", "for start in range(0, 1, BLOCK_P):"),
        ("x = tl.where(columns(i, FORM) < N, x, 0.0)", "x = x + 0.0"),
        ("        p += number(OFFSET, dtype)", "        p += 0.0"),
        ("        total += x[i] * y[i]", "        total += x[i]"),
    ],
    ("triton/rows_forward", ROWS): [
        ("tl.maximum(squares - rest * rest,", "tl.maximum(2 * squares - rest * rest,"),
        ("tl.rsqrt(var + number(EPS, var.dtype))", "tl.rsqrt(var)"),
        ("block -= which * each", "block -= 0"),
        ("weight = shifted(weight, which.to(tl.int64) * N)", "weight = weight"),
        ("tl.store(t.mean + rows, mean + rest,", "tl.store(t.mean + rows, rest,"),
        ("s = rounded(s, t.summed.dtype.element_ty).to(dtype)", "s = s.to(dtype)"),
    ],
    ("triton/rows_long_forward", ROWS): [
        ("squares += (distance - rest) * (distance - rest) * each", "squares += 0.0"),
        ("squares += away * away * (1 - 1 / seen)", "squares += away * away"),
        ("/ N + number(EPS, dtype))", "/ N)"),
        ("S = t.x if t.residual is None else t.summed", "S = t.x"),
    ],
    ("triton/rows_backward", ROWS): [
        ("dx = dx - mean_g", "dx = dx - 0 * mean_g"),
        ("dx = dx + load_piece(", "dx = dx + 0 * load_piece("),
        ("gs = gs + (affine(du, w_here, None),)", "gs = gs + (du,)"),
        ("tl.minimum(block + step, blocks - 1)", "tl.minimum(block + 0, blocks - 1)"),
        ("finalise(partial_w, partial_b,", "finalise(partial_b, partial_w,"),
        ("line = start * B + which", "line = start"),
        ("start -= which * each", "start -= 0"),
    ],
    ("cpu", ADAPTED): [
        ("own.first = sample * rows();", ""),
        ("(block * (samples - 1) + sample) * N;", "sample * N;"),
        ("std::min(end, (m / rows + 1) * rows)", "end"),
    ],
    ("reference/rows", ADAPTED): [
        ("grad.view(len(buffer), -1, grad.shape[1]).sum(1)", "grad.view(len(buffer), -1, grad.shape[1])[:, 0]"),
    ],
    ("modules/adapted", ADAPTED): [
        ("weight + offset if offset else weight", "weight"),
        ('"weight_offset": 1.0}', '"weight_offset": 0.0}'),
    ],
    ("ops/ragged", ADAPTED): [("if isinstance(t, Tensor) and t.dim() > dims:", "if False:")],
    ("cpu", GATED): [
        (
            "for (int64_t r = 0; r < count; r++) a.complete(m + r, 0,",
            "for (int64_t r = 0; r < count; r++) a.complete(m, 0,",
        ),
        ("a.through(m + r, 0, u + r * a.N", "a.through(m, 0, u + r * a.N"),
        ("return Pair<C>{s, s * rest};", "return Pair<C>{s, s};"),
        ("g, u, du, a.dgate ? g : nullptr, a.N);", "g, u, du, nullptr, a.N);"),
        ("if (a.dgate) transpose_out(g, rows,", "if (a.dgate) transpose_out(u, rows,"),
    ],
    ("reference/rows", WITNESS): [("dgate.copy_(dy * u *", "dgate.copy_(u *")],
    ("ops/rows", GATED): [("if gate is not None and gate.dtype != input.dtype:", "if False:")],
    ("ops/ragged", GATED): [("not is_ragged(t) or t.shape != input.shape", "t.shape != input.shape")],
    ("triton/rows_tiles", ROWS): [
        ("dgate = dy.to(u.dtype) * u *", "dgate = u *"),
        ("du = du * activation(gate.to(rstd.dtype), ACT, SLOPE)", "du = du"),
        ("derivative(affine(xhat, w, b), ACT, SLOPE)", "derivative(affine(xhat, w, None), ACT, SLOPE)"),
    ],
    ("triton/rows_long_backward", ROWS): [
        ("dx = affine(du, w, None) - xhat * mean_gx", "dx = affine(du, w, None)"),
        ("dx = dx - mean_g", "dx = dx - 0 * mean_g"),
        ("rows = ((blocks - 1 - i) * BLOCK_M", "rows = ((blocks - 1) * BLOCK_M"),
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
    ("ops/layer_norm.", WITNESS): [
        ("weight, bias, gate, ctx.settings)[0], input", "weight, bias, gate, ctx.settings)[0], input.detach()"),
    ],
    ("ops/layer_norm.", EAGER): [("empty(weight, ctx.needs_input_grad[2])", "empty(weight, ctx.needs_input_grad[3])")],
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
    ("cpu", f"{EDGES} -k native"): [
        ("return sizeof(compute_t<T>) == 8 ||", "return true ||"),
        ("static_cast<C>(-(total.mean - centre) * rstd[m])", "C(-0.0)"),
    ],
    ("cpu", NARROW): [
        ("return last ? v : Few<C>{}; };", "return v; };"),
        ("add(last ? few(x + N - kFewLanes) - about : Few<C>{}, 3);", "add(few(x + N - kFewLanes) - about, 3);"),
        ("if (N % kFewLanes) write(N - kFewLanes);", ""),
        ("rstd * (g - means[r].a - h * means[r].b)", "rstd * (g - h * means[r].b)"),
        ("(g - means[r].a - h * means[r].b) * known", "(g - h * means[r].b) * known"),
        ("if (a.dsummed) g = g + twos(", "if (false) g = g + twos("),
        ("put(twos(dy + j), du + r * a.N + j);", "put(twos(dy + j), du + j);"),
        ("lay_out(line, numbers_.data(), N);", "std::copy_n(line, N, numbers_.data());"),
        ("if (table) LaidOut<T>::put_back(", "if (false) LaidOut<T>::put_back("),
        ("constexpr int kNearestEven = 0;", "constexpr int kNearestEven = 3;"),
        ("widen(from + kFewLanes)}", "widen(from)}"),
        ("return v == v ? rounded :", "return v == v || true ? rounded :"),
        ("each_twos(N, [&](int64_t j", "each_twos(N - 1, [&](int64_t j"),
        ("if (a.dsummed) g += few(", "if (false) g += few("),
        ("if (a.nontemporal) copy_nontemporal(out, y, a.N", "if (false) copy_nontemporal(out, y, a.N"),
        ("store_tile(u, a.nontemporal ? out : a.y + m * a.N, n);", "store_tile(u, a.y + m * a.N, n);"),
        (
            "a.complete(m, 0, u, n);\n    }\n    store_tile(u, a.nontemporal",
            "}\n    store_tile(u, a.nontemporal",
        ),
        ("u, du, kRows * a.N);", "u, du, (kRows - 1) * a.N);"),
        ("if (rows < kSide) std::fill_n(to.at, N * kSide, compute_t<T>(0));", ""),
        ("lost = a.mean ? left[r] / count : 0", "lost = 0"),
        ("squares_fit<T>(m2, a.N, a.eps) ? found :", "true ? found :"),
        ("centred = a.mean ? share : C(0);", "centred = share;"),
        ("out + r * kBuffer / rows() :", "out :"),
        ("a.nontemporal && a.N % kFewLanes == 0 &&", "a.nontemporal &&"),
        ("__builtin_ia32_movntps512(a.dx + (m + r)", "__builtin_ia32_movntps512(a.dx + (m)"),
        ("return squares_fit<T>(squares, a.N, a.eps) ?", "return true ?"),
        ("if (!squares_fit<T>(m2, n, eps)) return", "if (false) return"),
        ("const int64_t head = std::min<int64_t>(", "const int64_t head = 0 * std::min<int64_t>("),
    ],
    ("cpu", NATIVE): [
        ("total.m2 / static_cast<double>(N) + eps", "total.m2 / static_cast<double>(N)"),
        ("a.m2 += b.m2 + delta * delta * a.count * b.count / count;", "a.m2 += b.m2;"),
        ("g = rstd * (g - means.a - xhat * means.b);", "g = rstd * (g - xhat * means.b);"),
        ("if constexpr (kSummed) g += load(dsummed[i]);", ""),
        ("b[i] += d * weight * xhat;", "b[i] += d * xhat;"),
        ("mean ? static_cast<C>(total.g / N) : C(0)", "C(0)"),
        ("static_cast<C>(total.g_xhat / N)};", "C(0)};"),
    ],
}
