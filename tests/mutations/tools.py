"""``validate``, the run on a GPU, and what is measured of filters."""

TABLE = {
    ("package/canonical", "tests/test_canonical.py"): [
        ("torch.where(apart, cosines, 0)", "cosines"),
        ("(filters @ filters.T).abs()", "filters @ filters.T"),
        ("pairs = 2 * (squares[1:]", "pairs = (squares[1:]"),
        ("return std**2 * coherence", "return std * coherence"),
        ("filters = filters / torch.where(largest == 0, 1, largest)", ""),
    ],
    ("package/conversion_propagation", "tests/test_convert_propagated.py"): [
        ("filters.norm(dim=1) * rstd * c1", "filters.norm(dim=1) * rstd"),
        ("own - mean.double() + c2 * filters.sum(1)", "own - mean.double()"),
        ("bias.double() - gain.double() * shift", "bias.double()"),
        ("any(uses[id(h)] > 1 for h in held)", "False"),
        ("not passes(link.module, last.pending())", "False"),
        ("norm._buffers[k] = t.to(gain)", "pass"),
        ("kept.bias.data = kept.bias.data.to(product.weight)", "pass"),
    ],
    ("package/conversion_residuals", "tests/test_convert_residual.py"): [
        ("others == list(self.usual.values())[2:]", "True"),
        ("len(given) != len(args) + len(named) or", ""),
        ("or len(whole) != len(self.called)", ""),
        ("(y.to(input.dtype), s) if both else y.to(input.dtype)", "(y, s) if both else y"),
        ("for named in ({}, {called[2]: True})", "for named in ({},)"),
    ],
    ("package/conversion_second", "tests/test_convert_residual.py"): [
        ("input.shape == other.shape and", ""),
        ("(dtype, torch.float32) if dtype.itemsize == 2 else (dtype,)", "(dtype, torch.float32)"),
    ],
    ("package/conversion_trying", "tests/test_convert_dtypes.py"): [
        ("for weights in (torch.float32, torch.bfloat16):", "for weights in (torch.float32,):"),
        ("for weights in (torch.float32, torch.bfloat16):", "for weights in (torch.bfloat16,):"),
    ],
    ("package/conversion_trying", "tests/test_convert_residual.py"): [
        ("for tensors in (inputs, narrow, mixed)", "for tensors in (inputs, narrow)"),
    ],
    ("package/conversion_fusing", "tests/test_convert_gated.py"): [
        ("or isinstance(norm, Second)", ""),
    ],
    ("package/conversion_gates", "tests/test_convert_gated.py"): [
        ("alike(input, gate, self.weight, (input.dtype,))", "True"),
    ],
    ("modules/wide_state", "tests/test_convert_dtypes.py"): [
        ("""self._buffers.keys() - {"weight", "bias"}""", "self._buffers.keys()"),
    ],
    ("package", "tests/test_validate.py"): [
        ("self.samples += other.samples", ""),
        ('(other.status == "error", other.worst) >= (self.status == "error", self.worst)', "True"),
        ("samples[first::shares]", "samples[first + 1 :: shares]"),
        ("return 1 if any(r.bad for r in results.values()) else 130 if interrupted else 0", "return 0"),
        ("_write(args.json, results)", "pass"),
        ("return @contextmanager", "pass\n\n\n@contextmanager"),
    ],
    ("bench/model_floor", "tests/test_model.py -k least"): [
        ("need.sums * (halves + 1) + told", "need.sums * halves + told"),
        ("told = MET if clustered else TOLD * together", "told = MET * clustered"),
        ("max(min(PACK, values), values /", "max(0, values /"),
        ("need = NEEDED[name][not centred]", "need = NEEDED[name][0]"),
        ("turn + beside + before / turns, BEGIN + kept", "turn + before / turns, BEGIN + kept"),
        ("each_turn == inside", "inside == 0"),
    ],
    ("bench", "tests/test_gpu_run.py"): [
        ("process.send_signal(signal.SIGINT)", "pass"),
        ("code == 1 or LOST.search(text)", "code == 1"),
        ('"pytest" in self.command and not', "False and not"),
        ("min(self.limit, deadline - start)", "self.limit"),
        ('step.status = "interrupted"', "pass"),
        ("1 if any(s.failed for s in self.steps) else 2 if", "2 if"),
        ("self.tails: dict[str, list[str]] = {} self.write()", "self.tails: dict[str, list[str]] = {}"),
        ("if step.native and not built:", "if False:"),
    ],
}
