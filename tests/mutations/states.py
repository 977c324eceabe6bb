"""Online norm, batch renorm, streaming norm, and what keeps their state."""

from mutations._tests import ONLINE, PROCESSES, RULES, STREAMS, WITNESS

TABLE = {
    ("reference", f"{WITNESS} -k online_norm"): [
        ("rate * (1 - rate) * (m - mean).square()", "rate * (m - mean).square()"),
        ("- (q * epsilon_y)[:, None] * xhat[n]", "- (p * epsilon_y)[:, None] * xhat[n]"),
        ("dz = du * (z.abs() <= clamp)", "dz = du"),
        ("dz - out * (dz * out).mean((1, 2), keepdim=True)", "dz"),
    ],
    ("reference", STREAMS): [
        ("seen = counts(4 * (s + m * m))", "seen = counts(s)"),
        ("seen = counts(square, g[n].mean(1), (g[n] * xhat[n]).mean(1))", "seen = counts(square)"),
        ("epsilon_y + (h * xhat[n]).mean(1)", "epsilon_y + (g[n] * xhat[n]).mean(1)"),
    ],
    ("reference", f"{WITNESS} -k batch_renorm"): [
        ("[0] * of_scale +", "[0] * of_scale + 0 *"),
        ("torch.maximum(std / running_std, 1 / r_max)", "std / running_std"),
    ],
    ("reference", f"{WITNESS} -k streaming_norm"): [
        ("torch.where(counts[1] > 0, long_term, short)", "long_term"),
        ("of_scale = of_scale * found[1].pow(1 - p)", "of_scale = of_scale"),
        ("(away - lean[:, None])", "away"),
    ],
    ("ops", STREAMS): [
        ("if torch._C._current_graph_task_id() != -1:", "if False:"),
        ("return run(first.before)[0]", "return run(before)[0]"),
        ("self._graphless.append(call)", "pass"),
        ("if ctx is None or getattr", "if ctx is None and getattr"),
        ("if all(map(torch.equal, run(call.before)[1], call.after)):", "if True:"),
        ("torch.arange(2, N + 2,", "torch.arange(1, N + 1,"),
        ("new if input.numel() else state", "new"),
        ("ctx.accumulators = [epsilon_y, epsilon_1]", "ctx.accumulators = [epsilon_1, epsilon_y]"),
        ("(var[0] + eps).sqrt()", "var[0].sqrt()"),
        (".clamp(0, 1)", ".clamp(0)"),
        ("n + 1 for n in state[2:]", "n for n in state[2:]"),
        ("torch.where(updates > 0, old * past + new * recent, recent)", "old * past + new * recent"),
        ("torch.where(arrivals > 0, entered, past)", "entered"),
        ("(updates > 0) | (arrivals == 0)", "updates > 0"),
        ("counts[:1].add_(1)", "counts[:1].fill_(1)"),
    ],
    ("ops", "tests/test_bad_batches.py"): [
        ("(pair[0] + pair[1]).abs()", "pair[0].abs()"),
        ("torch.where(met[0] > 0, short_term, long_term)", "short_term"),
    ],
    ("modules/state", STREAMS): [
        ("self.training and not self.frozen_statistics", "self.training"),
    ],
    ("modules", "tests/test_wide_state.py"): [
        ("t.dtype.itemsize < 4", "t.dtype.itemsize < 2"),
        ("value.to(t.device, torch.float32)", "t.float()"),
    ],
    ("modules", STREAMS): [
        ("self.epsilon_y.mul_(factor)", "self.epsilon_y.mul_(1)"),
        ("self.long_term[1].fill_(1.0)", "self.long_term[1].fill_(0.0)"),
    ],
    ("distributed", PROCESSES): [
        ("+ Z * (1 - Z) * d.square()", ""),
        ("1 / square) if settings.stable else p", "1 / square)"),
        ("mapped(state, maps[: rank(group)])", "mapped(state, maps[:0])"),
        ("joined(state[:2], elements[: rank(group)])", "joined(state[:2], elements)"),
        ("numbers[: rank(group)].sum()", "numbers[:0].sum()"),
        ("rate = rates[:, None] * seen", "rate = rates[:, None].expand_as(mean)"),
        ("seen = counts(square, planes(dx).sum(2, dtype=mean.dtype))", "seen = counts(square)"),
        ("taken * (here / count.clamp(min=1))", "taken"),
        ("arriving = arriving * weight", "pass"),
        ("torch.where(found.count > 0, new, running.to(new.dtype))", "new"),
    ],
    ("cpu", ONLINE): [
        ("+ cross * d * d) : var;", ") : var;"),
        ("finite(static_cast<C>(4 * (spread + value * value)));", "true;"),
        ("state_mean[i] = counts ? mean + rate * d : mean;", "state_mean[i] = mean + rate * d;"),
        ("2 * to.bias[i] * xhat)", "to.bias[i] * xhat)"),
        ("(w * of_g - q * e * xhat) * r", "w * of_g * r"),
        ("e - q * square * e + w * of_gx", "e - p * square * e + w * of_gx"),
        ("finite(square) & finite(w * of_g) & finite(w * of_gx);", "true;"),
        ("w * w * share * gain + pe", "pe"),
        ("kappa[i] *=", "kappa[i] *= 0 *"),
    ],
    ("cpu", RULES): [
        ("m.long_term[first + i] : recent", "m.long_term[first + i] : m.long_term[first + i]"),
        ("k.shift[i] = w * k.d[i] + b;", "k.shift[i] = k.d[i] + b;"),
        ("r < least ? least :", ""),
        ("(slopes ? b * slopes[first + i] : 0)", "0"),
        ("(slopes ? std::pow(scale, 1 - p) : 1 / scale)", "1 / scale"),
    ],
}
