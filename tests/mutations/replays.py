"""Calls that are recorded and made again without Python."""

from mutations._tests import REPLAYS

TABLE = {
    ("package", REPLAYS): [
        ("with _disable_current_modes():  # what it does inside is its own", "with contextlib.nullcontext():"),
        (
            "(root := self._made.get(self.register(t), self.inputs)) < self.inputs:",
            "(root := self._made.get(self.register(t), self.inputs)) < 0:",
        ),
        ("or alpha_or_rounding not in ([], [1]):", ":"),
        ("if len(dtypes) != 1 or {out.dtype} != result or not dtypes <= _NUMBERS:", "if len(dtypes) != 1:"),
        ("if not (fits and t.is_cpu and t.is_contiguous()):", "if not (fits and t.is_cpu):"),
        ("offset = t.storage_offset() - source.storage_offset()", "offset = 0"),
        ('self.refuse(f"{schema.name} tells a value")', "pass"),
        (
            "if len(recorder.graphs) != 1:",
            "if not recorder.graphs:",
            "what a second recipe makes or takes is refused by the lines that follow: the reason given is another",
        ),
        ("and r >= recorder.inputs for a, r", "and False for a, r"),
        ("[*gradients, *left], written", "gradients, written"),
        ("[*returned, *graphs, *after]", "[*returned, *graphs]"),
        ("grads = *grads, *[None] * (outputs - len(grads))", "grads = tuple(grads)"),
        ("if type(a) is str]", "if a == 0]"),
    ],
    ("replay", REPLAYS): [
        ("static_cast<uint64_t>(impl->requires_grad()));", "0);"),
        ("for (const int64_t n : impl->strides()) words.push_back(static_cast<uint64_t>(n));", ""),
        (
            "return (t.key_set().raw_repr() & ~known) == 0;",
            "return true;",
            "what has other keys is told apart again: by its type, the thread's modes, or as its call is recorded",
        ),
        ("return (normal || inference) &&", "return (true || inference) &&"),
        (
            "constexpr auto included = c10::default_included_set;",
            "static const auto included = c10::impl::tls_local_dispatch_key_set().included_;",
        ),
        ("key.push_back(6 | static_cast<uint64_t>(first) << 8);", "key.push_back(6);"),
        ("key.push_back(std::bit_cast<uint64_t>(PyFloat_AS_DOUBLE(o)));", "key.push_back(0);"),
        (
            "if (!left_.empty() || torch::autograd::GradMode::is_enabled() ||",
            "if (torch::autograd::GradMode::is_enabled() ||",
        ),
        ("key.push_back(needed(i));", "key.push_back(1);"),
        (
            "saved_.emplace_back(r < 0 ? Tensor() : registers[r], r >= 0 && output);",
            "saved_.emplace_back(r < 0 ? Tensor() : registers[r], false);",
        ),
        ("registers[r].unsafeGetTensorImpl()->bump_version();", "(void)r;"),
        ("reader[s->source] = std::max(reader[s->source], reader[s->out]);", "(void)s;"),
        ("if (s->in_place) tensor[s->out] = true;", ""),
        ("scratch_ += (s->small->n", "scratch_ += 0 * (s->small->n"),
    ],
}
