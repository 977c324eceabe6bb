"""Weight norm, weight standardisation, NormProp, data norm, and what is folded into weights."""

from mutations._tests import EDGES, FILTERS, FILTERS_NATIVE, REFERENCE, WITNESS

TABLE = {
    ("reference", f"{WITNESS} -k weight_norm"): [
        ("* r.unsqueeze(1)", ""),
        ("- filters * along.unsqueeze(1)", ""),
        ("torch.where(norm > 0, 1 / norm, 0)", "1 / norm"),
    ],
    ("reference/weight_standardization", f"{WITNESS} -k weight_standardization"): [
        (".mean(1, keepdim=True) - xhat", ".mean(1, keepdim=True) * 0 - xhat"),
        ("eps).squeeze(1)", "eps * 0).squeeze(1)"),
    ],
    ("reference", REFERENCE): [
        ("y.clamp(a.low, a.high), y))", "y, y))"),
        ("- y * (a + (1 - a) / math.pi) / (2 * c1)", ""),
        ("(1 - f * f).clamp(min=0)", "1 - f"),
        ("torch.where(f > 0, 1.0, f + 1)", "torch.where(f > 0, 1.0, f)"),
        ("-torch.expm1(-f.clamp(min=0))", "torch.sigmoid(f)"),
        ("inner, outer = 1 / 6 if", "inner, outer = 1.0 if"),
    ],
    ("cpu/filters", "tests/test_backends.py -k 'native and weight_'"): [
        ("add(p.b, b, k);", ""),
        ("d * a + ((v - mean) * rstd * b + c);", "d * a + ((v - mean) * rstd * b);"),
        ("kTwos && n % kPaired == 0", "kTwos"),
    ],
    ("cpu/filters", "tests/test_short_filters.py"): [
        ("left = rest * share;", "left = 0;"),
        ("if (!squares_fit<T>(found, a.N, a.eps)) {", "if (false) {"),
        ("h[k] = h[k] + shift;", ""),
        ("if constexpr (kCentred) v = v - of_all;", ""),
        ("if (folds(f.rstd[r])) {", "if (false) {"),
        ("return rstd > C(1e-15) && rstd < C(1e15);", "return true;"),
    ],
    ("cpu/filters", f"{EDGES} -k native"): [
        ("f.c[r] = (mean - f.mean[r]) + left;", "f.c[r] = 0;"),
    ],
    ("ops", FILTERS_NATIVE): [
        ("at += 4 * direction * ulp", "at -= 4 * direction * ulp"),
        ("and leak <= 0)", "and leak < -9)"),
        ("SMOOTH and dtype.itemsize > 2", "SMOOTH and dtype.itemsize > 9"),
        ("key=lambda d: -weight.stride(d)", "key=lambda d: weight.stride(d)"),
    ],
    ("ops", FILTERS): [
        ("[n for t in reversed(total) for n in (0, t % 2)]", "[n for t in reversed(total) for n in (t % 2, 0)]"),
        ("input = input.to(torch.get_autocast_dtype(input.device.type))", "pass"),
        (
            "ours = not (watched(u) or u._is_view())",
            "ours = False",
            "y then lies beside u instead of in its place: the same numbers in more memory",
        ),
        ("torch.autograd.graph.increment_version(weight)", "pass"),
        ("weight.copy_(shaped(filters, weight, order(weight, 0)))", "pass"),
    ],
    ("ops", "tests/test_backends.py tests/test_properties.py -k 'weight and reference'"): [
        ("back = sorted(range(len(dims)), key=dims.__getitem__)", "back = dims"),
    ],
    ("modules", FILTERS): [
        (
            "[p for t in reversed(total) for p in (t // 2, t - t // 2)]",
            "[p for t in total for p in (t // 2, t - t // 2)]",
        ),
        ("t.copy_(value)", "pass"),
        ("shift = -mean / std if", "shift = mean / std if"),
        ("if parametrize.is_parametrized(module, name):", "if False:"),
        ("check_weight(function, name, found)", "pass"),
        ("isinstance(dim, int) and -1", "-1"),
        ('old = [f"{prefix}{name}_{part}" for part in "gv"]', 'old = [f"{prefix}{name}_{part}" for part in "vg"]'),
    ],
    ("package", FILTERS): [
        ("+ distance.square() * (len(x) * (count - len(x)) / count)", ""),
        ("+ share * (1 - share) * distance.square()", ""),
        ("torch.where(seen == 0, 1.0, self.momentum)", "torch.where(seen < 0, 1.0, self.momentum)"),
        ("safe = torch.where(_constant(mean, var), 1, var)", "safe = var"),
        ("return pending.scale.numel() == 1", "return True"),
        ("counts_zeros = any(padding) and module.count_include_pad", "counts_zeros = False"),
        ("if any(pads) and value.numel() > 1: return None", "value = value[:1]"),
        ("return [pad(tuple(pads), value.item()), layer]", "return [pad(tuple(pads), 0.0), layer]"),
        ("if type(layer) not in (nn.Linear, *KINDS.values()):", "if False:"),
        ("(1 - slope) * (1 - slope) / math.pi) / 2", "(1 - slope) / math.pi) / 2"),
    ],
}
