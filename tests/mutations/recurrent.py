"""Layer and batch norm in RNN, LSTM and GRU."""

from mutations._tests import RECURRENT, RECURRENT_NATIVE, REFERENCE, WITNESS

TABLE = {
    ("ops", "tests/test_loops.py tests/test_recurrent*.py -k 'not compile'"): [
        ("return y.clone() if kept and not", "return y.clone() if not kept and not"),
    ],
    ("ops", f"{WITNESS} -k 'packed and (rnn or gru or lstm)'"): [
        ("first[below:size]", "first[: size - below]"),
        ("values[end : end + below]", "values[at : at + below]"),
        ("values[at - above :][:size]", "values[at - size :][:size]"),
    ],
    ("cpu/recurrent", RECURRENT_NATIVE): [
        ("pointer<C>(from) + first * K", "pointer<C>(from)"),
        ("if (columns == kPanel)", "if (true)"),
        ("rows(std::integral_constant<int64_t, 1>());", ""),
    ],
    ("ops", "tests/test_packed_sequences.py"): [
        ("if device == batch_sizes.device:", "if True:"),
    ],
    ("ops", RECURRENT): [
        ("found.flip(0) if reverse else found", "found"),
        ("unbiased = var * (sizes / (sizes - 1))", "unbiased = var"),
        ("(1 - momentum) ** left + arrived", "(1 - momentum) + arrived"),
        ("running.update(mean, var, rows, momentum, reverse)", "pass"),
    ],
    ("reference", REFERENCE): [
        ("(g - g.mean(dims, keepdim=True) - xhat", "(g - xhat"),
        ("buffer.shape[0] == total", "True"),
        ("dn * q_n * r * (1 - r)", "dn * q_n * r"),
        ("dh_new * z +", "0 * dh_new * z +"),
    ],
    ("reference/recurrent", REFERENCE): [
        ("rstd, weight, dims) + (a.dc[:n] if a.raw_cells is None else 0)", "rstd, weight, dims)"),
        ("(a.dc[:n] if cell_norm is None or a.raw_cells is not None else 0)", "a.dc[:n]"),
    ],
    ("modules", RECURRENT): [
        ("states if order is None else tuple(s.index_select(1, order) for s in states)", "states"),
        ("layer + 1 < self.num_layers", "layer < self.num_layers"),
        ("reverse=direction == 1", "reverse=False"),
        ("None if bias_ih is None else bias_ih + bias_hh", "bias_hh"),
        ("if not any(prefix + name in state_dict for name in norms):", "if True:"),
        ("torch.full_like(t, self._first(name), **made) if t.is_meta else", ""),
        ("if t.is_meta else t.to(**made)", "if t.is_meta else t"),
        ("sizes = [2 * self.hidden_size, self.hidden_size]", "sizes = [self.hidden_size, 2 * self.hidden_size]"),
        (
            "(torch.arange(len(counts), device=counts.device) <= last)",
            "(torch.arange(len(counts), device=counts.device) < 0)",
        ),
        ("torch.where(unseen, buffer[last], buffer)", "buffer"),
        ("training = self.training or not self.track_running_stats", "training = self.training"),
    ],
    ("modules", "tests/test_step_affine.py"): [
        ("(steps - stop, steps - start) if reverse", "(start, stop) if reverse"),
        ("ys[::-1] if reverse else ys", "ys"),
        ("slots.flip(0) if reverse else slots]", "slots]"),
        ("device=parameter.device).clamp(max=last)]", "device=parameter.device)]"),
        ("t if t is None else t[slot : slot + 1]", "t"),
        ("torch.cat([a, s[n:]]) for a, s", "s for a, s"),
        ('bias if norm_bias is None or self.norm_terms == "separate" else bias + norm_bias', "bias"),
    ],
}
