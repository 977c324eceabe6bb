"""Layer norm, RMS norm and layer norm of rows whose units lie a stride apart."""

from mutations._tests import EAGER, EDGES, NARROW, NATIVE, ROWS, STRIDED_ROWS, WITNESS

TABLE = {
    ("triton", ROWS): [
        ("axis=1)[:, None] / N + number(EPS, x.dtype))", "axis=1)[:, None] / (N - 1) + number(EPS, x.dtype))"),
        ("axis=1)[:, None] / N + number(EPS, x.dtype))", "axis=1)[:, None] / N)"),
        ("rows[:, None], mean + rest,", "rows[:, None], rest,"),
        ("squares += (distance - rest) * (distance - rest) * count", "squares += 0.0"),
        ("axis=0) / N + number(EPS, squares.dtype))", "axis=0) / N)"),
        ("residual is None else", "residual is None or True else"),
        ("return s.to(x.dtype)", "return x + load_rows(R, rows, cols, stride, mask, x.dtype)"),
        ("return 0 if t is None else t.stride(0)", "return 0 if t is None else t.shape[1]"),
        ("x = tl.where(mask, x - mean, 0.0)", "x = x - mean"),
        ("cols[None, :] < N, other=0.0).to(dtype) + number(OFFSET, dtype)", "cols[None, :] < N, other=0.0).to(dtype)"),
        ("for start in range(0, P, BLOCK_P):", "for start in range(0, 1, BLOCK_P):"),
        ("dx = g - mean_g[:, None] - xhat * mean_gx", "dx = g - xhat * mean_gx"),
        ("return xhat, du, affine(du, w, None), rstd", "return xhat, du, du, rstd"),
        ("dx = dx + load_rows(", "dx = dx + 0 * load_rows("),
    ],
    ("triton/rows_backward", ROWS): [
        ("derivative(affine(xhat, w, b), ACT, SLOPE)", "derivative(affine(xhat, w, None), ACT, SLOPE)"),
        ("finalise(partial_w, partial_b,", "finalise(partial_b, partial_w,"),
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
    ("ops/layer_norm.", EAGER): [("empty(weight, ctx.needs_input_grad[2])", "empty(weight, ctx.needs_input_grad[3])")],
    ("package", WITNESS): [("k * (1 + 3 * a * u * u)", "k * (1 + a * u * u)")],
    ("ops", EAGER): [
        ("dresidual = dx if ctx.needs_input_grad[1] else None", "dresidual = None"),
        ("rows.view(input.movedim(1, -1).shape).movedim(-1, 1)", "rows.view(input.shape)"),
    ],
    ("ops", WITNESS): [
        ("weight, bias, ctx.settings)[0], input", "weight, bias, ctx.settings)[0], input.detach()"),
        ("torch.float64 if input.dtype == torch.float64 else torch.float32", "torch.float32"),
    ],
    ("reference/rows", "tests/test_distributed.py -k sharding-2"): [
        ("total.redistribute(placements=whole) /", "total /"),
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
        ("if (table) LaidOut::put_back(", "if (false) LaidOut::put_back("),
        ("return v == v ? rounded :", "return v == v || true ? rounded :"),
        ("each_twos(N, [&](int64_t j", "each_twos(N - 1, [&](int64_t j"),
        ("if (a.dsummed) g += few(", "if (false) g += few("),
        ("if (a.nontemporal) copy_nontemporal(out, y, a.N", "if (false) copy_nontemporal(out, y, a.N"),
        ("store_tile(u, a.nontemporal ? out : a.y + m * a.N, n);", "store_tile(u, a.y + m * a.N, n);"),
        (
            "activate(a.affine.activation, a.affine.slope, u, n);\n    store_tile(u, a.nontemporal",
            "store_tile(u, a.nontemporal",
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
