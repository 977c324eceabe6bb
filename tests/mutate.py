"""Break the kernels on purpose, one line at a time, and list the breaks that no test notices.

python tests/mutate.py [--only triton] [--native]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parents[1]
COPIED = ("normkernels", "bench", "tests", "csrc", "setup.py", "pyproject.toml", "README.md", "LICENSE")
TRITON, REFERENCE, OPS, CPU = (
    "normkernels/backends/triton",
    "normkernels/backends/reference",
    "normkernels/ops",
    "csrc/cpu",
)
CONSOLE = Console()


class Mutation(NamedTuple):
    """Replace ``old``, which must be there exactly once, and run the tests that ``tests`` selects."""

    file: str
    tests: str
    old: str
    new: str


FAST = "(float32 or float16 or partial_rows) and not float16+float32"
ROWS = f"tests/test_backends.py -k 'triton and not _2d and {FAST}'"
PIXELS = f"tests/test_backends.py -k 'triton and _2d and {FAST}'"
CHANNELS = f"tests/test_backends.py tests/test_batch_norm.py tests/test_channels.py -k 'triton and {FAST} or walked'"
WITNESS = "tests/test_reference.py"
EDGES = "tests/test_edges.py"
EAGER = "tests/test_backends.py tests/test_properties.py -k reference"
LOCAL = "tests/test_batch_norm.py"
STATE = "tests/test_channels.py tests/test_channel_modules.py tests/test_backends.py -k 'not triton and not native'"
QUIET = " -k 'not triton and not native and not compiled'"
FILES = ("recomputed_state", "state", "online_norm", "batch_renorm", "streaming_norm")
STREAMS = " ".join(f"tests/test_{name}.py" for name in FILES) + QUIET
NATIVE = "tests/test_backends.py tests/test_properties.py -k native"
SCAN = "tests/test_online_norm.py -k native"
RULES = "tests/test_batch_renorm.py tests/test_streaming_norm.py -k native"
WEIGHTS = "tests/test_normprop.py tests/test_weight_norm.py tests/test_data_norm.py tests/test_fold.py" + QUIET
NARROW = "tests/test_narrow_rows.py tests/test_edges.py -k 'native or narrow'"
REPLAYS = "tests/test_replays.py"
RECURRENT = "tests/test_recurrent.py -k 'not triton and not native and not compile'"

# (file, tests): its lines and what becomes of them
TABLE = {
    (f"{TRITON}/_rows_forward.py", ROWS): [
        ("axis=1)[:, None] / N + number(EPS, x.dtype))", "axis=1)[:, None] / (N - 1) + number(EPS, x.dtype))"),
        ("axis=1)[:, None] / N + number(EPS, x.dtype))", "axis=1)[:, None] / N)"),
        ("tl.store(MEAN + rows[:, None], mean + rest,", "tl.store(MEAN + rows[:, None], rest,"),
        ("squares += (distance - rest) * (distance - rest) * count", "squares += 0.0"),
        ("axis=0) / N + number(EPS, squares.dtype))", "axis=0) / N)"),
        ("s = x if residual is None else summed\n", "s = x\n"),
    ],
    (f"{TRITON}/_rows.py", ROWS): [
        ("return s.to(x.dtype)", "return x + load_rows(R, rows, cols, stride, mask, x.dtype)"),
        ("return 0 if t is None else t.stride(0)", "return 0 if t is None else t.shape[1]"),
        ("x = tl.where(mask, x - mean, 0.0)", "x = x - mean"),
        ("other=0.0).to(dtype) + number(OFFSET, dtype)", "other=0.0).to(dtype)"),
        ("for start in range(0, P, BLOCK_P):", "for start in range(0, 1, BLOCK_P):"),
    ],
    (f"{TRITON}/_rows_backward.py", ROWS): [
        ("dx = dx - tl.sum(g, axis=1)[:, None] / N", "dx = dx"),
        ("return xhat, du, affine(du, w, None), rstd", "return xhat, du, du, rstd"),
        ("dx = dx + load_rows(DSUMMED,", "dx = dx + 0 * load_rows(DSUMMED,"),
        ("derivative(affine(xhat, w, b), ACT, SLOPE)", "derivative(affine(xhat, w, None), ACT, SLOPE)"),
        ("finalise(partial_w, partial_b, dweight, dbias)", "finalise(partial_b, partial_w, dweight, dbias)"),
    ],
    (f"{TRITON}/layer_norm_2d.py", PIXELS): [
        ("squares += squares_here + distance * move * low", "squares += squares_here"),
        ("dx = g - tl.sum(g, axis=0)[None, :] / N - xhat", "dx = g - xhat"),
        ("dx = (g - sum_g[None, :] / N - xhat", "dx = (g - xhat"),
    ],
    (f"{TRITON}/_pixels.py", PIXELS): [("dx = dx + load_tile(DSUMMED,", "dx = dx + 0 * load_tile(DSUMMED,")],
    (f"{REFERENCE}/layer_norm.py", WITNESS): [
        ("g = g - g.mean(1, keepdim=True) - ", "g = g - "),
        ("store_parameter_grad(dweight, du * xhat)", "store_parameter_grad(dweight, du)"),
    ],
    (f"{REFERENCE}/rms_norm.py", WITNESS): [
        ("(g * xhat).mean(1", "(g * xhat).sum(1"),
    ],
    (f"{REFERENCE}/_rows.py", WITNESS): [
        ("grad if dsummed is None else grad + dsummed", "grad"),
        (" + eps * scale * scale)", ")"),
    ],
    (f"{REFERENCE}/_rows.py", f"{EDGES} -k reference"): [
        ("return z - rest, mean + rest", "return z, mean"),
        ("return 2.0 ** -torch.log2(peak)", "return 2.0 ** 0 * torch.log2(peak)"),
    ],
    (f"{REFERENCE}/_activations.py", WITNESS): [("k * (1 + 3 * a * u * u)", "k * (1 + a * u * u)")],
    (f"{OPS}/layer_norm.py", EAGER): [
        ("dresidual = dx if ctx.needs_input_grad[1] else None", "dresidual = None"),
        ("ctx.needs_input_grad[2]), _rows.empty(bias", "ctx.needs_input_grad[3]), _rows.empty(bias"),
    ],
    (f"{OPS}/layer_norm.py", WITNESS): [
        ("weight, bias, ctx.settings)[0], input\n", "weight, bias, ctx.settings)[0], input.detach()\n")
    ],
    (f"{REFERENCE}/_channels.py", WITNESS): [
        (
            "return mean.reshape(shape), z.square().mean((1, 3, 4))",
            "return mean.reshape(shape), z.square().sum((1, 3, 4))",
        ),
        ("g = g - c1 - xhat * c2", "g = g - c1"),
        ("dweight.copy_((du * xhat).sum((0, 2)))", "dweight.copy_(du.sum((0, 2)))"),
        ("return xhat if skip is None else xhat + skip.to(xhat.dtype)", "return xhat"),
        ("    if training:\n", "    if True:\n"),
    ],
    (f"{REFERENCE}/_channels.py", f"{LOCAL} -k reference"): [
        ("sum_dy_xhat.copy_((du * xhat).sum((0, 2)))", "sum_dy_xhat.copy_(du.sum((0, 2)))"),
        (
            "du - mean_dy[:, None] - xhat * mean_dy_xhat[:, None], weight, None, None)",
            "du - mean_dy[:, None], weight, None, None)",
        ),
        ("    if dskip is not None:\n        dskip.copy_(du)\n    dx.copy_(affine", "    dx.copy_(affine"),
    ],
    (f"{OPS}/_channels.py", STATE): [
        ('kept = None if activation == "identity" else skip', "kept = skip"),
        ("copy = statistic_dtype(input), torch.is_grad_enabled()", "copy = statistic_dtype(input), False"),
        ("return t.dtype if t.dtype.itemsize > 2 else torch.float32", "return t.dtype"),
        ("(y, *moments(x.detach(), shape))", "(y, *moments(2 * x.detach(), shape))"),
        ("grads[1] = dy\n", "grads[1] = None\n"),
        (
            "return input.new_empty_strided(input.shape, (channels, 1, *strides[:-1]))",
            "return torch.empty_like(input, memory_format=torch.contiguous_format)",
        ),
    ],
    (f"{OPS}/batch_norm.py", STATE): [
        ("var[0] * (count / (count - 1))", "var[0]"),
        ("if training and count > 0 and", "if training and"),
    ],
    (f"{OPS}/instance_norm.py", STATE): [
        ("mean.mean(0), momentum", "mean[0], momentum"),
        ("var.mean(0) * (count / (count - 1))", "var.mean(0)"),
    ],
    ("normkernels/modules/batch_norm.py", STATE): [
        ("float(seen) + 1.0", "float(seen) + 2.0"),
        ("training or self.running_mean is None", "training"),
        ("self.training and not self.frozen_statistics", "self.training"),
    ],
    (f"{REFERENCE}/online_norm.py", f"{WITNESS} -k online_norm"): [
        ("rate * (1 - rate) * (m - mean).square()", "rate * (m - mean).square()"),
        ("- (q * epsilon_y)[:, None] * xhat[n]", "- (p * epsilon_y)[:, None] * xhat[n]"),
        ("dz = du * (z.abs() <= clamp)", "dz = du"),
        ("dz - out * (dz * out).mean((1, 2), keepdim=True)", "dz"),
    ],
    (f"{REFERENCE}/online_norm.py", STREAMS): [
        ("seen = counts(4 * (s + m * m))", "seen = counts(s)"),
        ("seen = counts(square, g[n].mean(1), (g[n] * xhat[n]).mean(1))", "seen = counts(square)"),
        ("epsilon_y + (h * xhat[n]).mean(1)", "epsilon_y + (g[n] * xhat[n]).mean(1)"),
    ],
    (f"{REFERENCE}/batch_renorm.py", f"{WITNESS} -k batch_renorm"): [
        ("r[0] * of_scale + d[0] * of_shift", "r[0] * of_scale"),
        ("torch.maximum(std / running_std, 1 / r_max)", "std / running_std"),
    ],
    (f"{REFERENCE}/streaming_norm.py", f"{WITNESS} -k streaming_norm"): [
        ("torch.where(counts[1] > 0, long_term, short)", "long_term"),
        ("of_scale = of_scale * found[1].pow(1 - p)", "of_scale = of_scale"),
        ("(away - away.mean((0, 2))[:, None])", "away"),
    ],
    ("normkernels/_record.py", REPLAYS): [
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
    ],
    ("normkernels/_replays.py", REPLAYS): [
        ("if len(recorder.graphs) != 1:", "if not recorder.graphs:"),
        ("and r >= recorder.inputs for a, r", "and False for a, r"),
        ("[*gradients, *left], written", "gradients, written"),
        ("[*returned, *graphs, *after]", "[*returned, *graphs]"),
        ("grads = *grads, *[None] * (outputs - len(grads))", "grads = tuple(grads)"),
        ("if type(a) is str]", "if a == 0]"),
    ],
    (f"{OPS}/_recurrent.py", "tests/test_loops.py tests/test_recurrent.py -k 'not compile'"): [
        ("return y.clone() if kept and not", "return y.clone() if not kept and not"),
    ],
    (f"{OPS}/_state.py", STREAMS): [
        ("if torch._C._current_graph_task_id() != -1:", "if False:"),
        ("return run(first.before)[0]", "return run(before)[0]"),
        ("self._graphless.append(call)", "pass"),
        ("if ctx is None or getattr", "if ctx is None and getattr"),
        ("if all(map(torch.equal, run(call.before)[1], call.after)):", "if True:"),
    ],
    (f"{OPS}/_state.py", "tests/test_bad_batches.py"): [("(pair[0] + pair[1]).abs()", "pair[0].abs()")],
    (f"{OPS}/streaming_norm.py", "tests/test_bad_batches.py"): [
        ("torch.where(met[0] > 0, short_term, long_term)", "short_term"),
    ],
    (f"{OPS}/online_norm.py", STREAMS): [
        ("torch.arange(2, N + 2,", "torch.arange(1, N + 1,"),
        ("return new if input.numel() else state", "return new"),
        ("ctx.accumulators = [epsilon_y, epsilon_1]", "ctx.accumulators = [epsilon_1, epsilon_y]"),
    ],
    (f"{OPS}/batch_renorm.py", STREAMS): [
        ("(var[0] + eps).sqrt()", "var[0].sqrt()"),
        (".clamp(0, 1)", ".clamp(0)"),
        ("n + 1 for n in state[2:]", "n for n in state[2:]"),
    ],
    (f"{OPS}/streaming_norm.py", STREAMS): [
        ("torch.where(updates > 0, old * past + new * recent, recent)", "old * past + new * recent"),
        ("torch.where(arrivals > 0, entered, past)", "entered"),
        ("(updates > 0) | (arrivals == 0)", "updates > 0"),
        ("counts[:1].add_(1)", "counts[:1].fill_(1)"),
    ],
    ("normkernels/modules/_state.py", STREAMS): [
        ("self.training and not self.frozen_statistics", "self.training"),
    ],
    ("normkernels/modules/_wide_state.py", "tests/test_wide_state.py"): [
        ("t.dtype.itemsize < 4", "t.dtype.itemsize < 2"),
        ("value.to(t.device, torch.float32)", "t.float()"),
    ],
    ("normkernels/modules/_channels.py", "tests/test_freezing.py"): [
        ("        if not self.frozen_statistics:\n", "        if True:\n"),
        ("        if self.frozen_statistics:\n            self._forget()\n", ""),
        ("if self.frozen_affine and not any(", "if not any("),
        ("if self.frozen_affine and not any(", "if self.frozen_affine or not any("),
        ('"affine" in frozen)', "True)"),
    ],
    ("normkernels/modules/_channels.py", "tests/test_torch_utilities.py"): [
        ("if self.activation is not None:", "if False:"),
        ("elif self.frozen_statistics:", "elif False:"),
    ],
    ("normkernels/modules/layer_norm.py", "tests/test_torch_utilities.py"): [
        ("self.activation is None and self.weight_offset == 0", "self.activation is None"),
    ],
    ("normkernels/modules/online_norm.py", STREAMS): [("self.epsilon_y.mul_(factor)", "self.epsilon_y.mul_(1)")],
    ("normkernels/modules/streaming_norm.py", STREAMS): [
        ("self.long_term[1].fill_(1.0)", "self.long_term[1].fill_(0.0)")
    ],
    (f"{OPS}/_rows.py", NATIVE): [("t if n == 1 or t.stride(1) == 1 else t.contiguous()", "t")],
    (f"{OPS}/rms_norm.py", WITNESS): [
        ("torch.float64 if input.dtype == torch.float64 else torch.float32", "torch.float32")
    ],
    (f"{OPS}/layer_norm_2d.py", EAGER): [
        ("rows.view(input.movedim(1, -1).shape).movedim(-1, 1)", "rows.view(input.shape)")
    ],
    (f"{CPU}/lanes.h", f"{EDGES} -k native"): [("  return sizeof(compute_t<T>) == 8 ||", "  return true ||")],
    (f"{CPU}/rows.h", f"{EDGES} -k native"): [("static_cast<C>(-(total.mean - centre) * rstd[m])", "C(-0.0)")],
    (f"{CPU}/channels.h", f"{EDGES} -k native"): [
        ("if (!training || mean_dy || centre) return false;", "return false;"),
        ("bool wide(int64_t statistic) const { return ", "bool wide(int64_t statistic) const { return false && "),
    ],
    ("csrc/replay/key.h", REPLAYS): [
        ("static_cast<uint64_t>(impl->requires_grad()));", "0);"),
        ("for (const int64_t n : impl->strides()) words.push_back(static_cast<uint64_t>(n));", ""),
        ("return (t.key_set().raw_repr() & ~known) == 0;", "return true;"),
        ("return (Usual::same(now, usual.normal) ||", "return (true ||"),
    ],
    ("csrc/replay/module.cpp", REPLAYS): [
        ("key.push_back(6 | static_cast<uint64_t>(first) << 8);", "key.push_back(6);"),
        ("key.push_back(std::bit_cast<uint64_t>(PyFloat_AS_DOUBLE(o)));", "key.push_back(0);"),
    ],
    ("csrc/replay/node.cpp", REPLAYS): [
        (
            "if (!left_.empty() || torch::autograd::GradMode::is_enabled() ||",
            "if (torch::autograd::GradMode::is_enabled() ||",
        ),
        ("key.push_back(needed(i));", "key.push_back(1);"),
        (
            "saved_.emplace_back(r < 0 ? Tensor() : registers[r], r >= 0 && output);",
            "saved_.emplace_back(r < 0 ? Tensor() : registers[r], false);",
        ),
    ],
    ("csrc/replay/program.cpp", REPLAYS): [
        ("registers[r].unsafeGetTensorImpl()->bump_version();", "(void)r;"),
        ("reader[s->source] = std::max(reader[s->source], reader[s->out]);", "(void)s;"),
        ("if (s->in_place) tensor[s->out] = true;", ""),
        ("scratch_ += (s->small->n", "scratch_ += 0 * (s->small->n"),
    ],
    (f"{CPU}/narrow_rows.cpp", NARROW): [
        ("return last ? v : Few<C>{}; };", "return v; };"),
        ("add(last ? few(x + N - kFewLanes) - about : Few<C>{}, 3);", "add(few(x + N - kFewLanes) - about, 3);"),
        ("if (N % kFewLanes) write(N - kFewLanes);", ""),
        ("(g - means[r].a - h * means[r].b)", "(g - h * means[r].b)"),
        ("if (a.dsummed) g += few(", "if (false) g += few("),
        ("if (a.stream) stream_bytes(out, a.y + m * N,", "if (false) stream_bytes(out, a.y + m * N,"),
        ("(a.stream ? out + r * kTile : a.dx", "(a.stream ? out : a.dx"),
        ("return squares_fit<T>(squares, a.N, a.eps) ?", "return true ?"),
    ],
    (f"{CPU}/moments.h", NARROW): [
        ("about += s.a * share;", ""),
        ("if (!squares_fit<T>(m2, n, eps)) return", "if (false) return"),
    ],
    (f"{CPU}/tiles.cpp", NARROW): [
        ("const int64_t head = std::min<int64_t>(", "const int64_t head = 0 * std::min<int64_t>(")
    ],
    (f"{CPU}/planes_backward.h", NATIVE): [
        (
            "a.template blend<C>(statistic + k, first + j, means[k])",
            "a.template blend<C>(statistic + k, j, means[k])",
        ),
        ("mean[j] = a.mean[statistic + k];", "mean[j] = a.mean[statistic];"),
    ],
    (f"{CPU}/rows.h", NATIVE): [("total.m2 / static_cast<double>(N) + eps", "total.m2 / static_cast<double>(N)")],
    (f"{CPU}/tiles.h", NATIVE): [("a.m2 += b.m2 + delta * delta * a.count * b.count / count;", "a.m2 += b.m2;")],
    (f"{CPU}/tiles.cpp", NATIVE): [
        ("g = rstd * (g - means.a - xhat * means.b);", "g = rstd * (g - xhat * means.b);"),
        ("if constexpr (kSummed) g += load(dsummed[i]);", ""),
    ],
    (f"{CPU}/column_tiles.cpp", NATIVE): [("b[i] += d * weight * xhat;", "b[i] += d * xhat;")],
    (f"{CPU}/rows_backward.h", NATIVE): [
        ("mean ? static_cast<C>(total.g / N) : C(0)", "C(0)"),
        ("static_cast<C>(total.g_xhat / N)};", "C(0)};"),
    ],
    (f"{TRITON}/_channels.py", CHANNELS): [
        ("x = tl.where(mask, x - broad(mean, 3), 0.0)", "x = x - broad(mean, 3)"),
        ("tl.rsqrt(rstd + number(EPS, rstd.dtype))", "tl.rsqrt(rstd)"),
    ],
    (f"{TRITON}/_channels_sizes.py", CHANNELS): [('"EPS": eps or 0.0', '"EPS": 0.0')],
    (f"{TRITON}/_channels_sizes.py", f"tests/test_backends.py -k 'streaming and triton and {FAST}'"): [
        ('"SCALED": eps is None', '"SCALED": False')
    ],
    (f"{TRITON}/_channels_forward.py", CHANNELS): [
        ("squares += away * away * (1 - 1 / seen)", "squares += away * away"),
        ("sum_squares += distance * distance * count + ", "sum_squares += "),
        ("program = tl.num_programs(0) - 1 - tl.program_id(0)", "program = 0 * tl.program_id(0)"),
    ],
    (f"{TRITON}/_channels_backward.py", CHANNELS): [
        ("- broad(mean_g, 3) - xhat * broad(mean_gx, 3)", "- xhat * broad(mean_gx, 3)"),
        ("        dw += du * xhat\n", "        dw += du\n"),
        ("sum_g += affine(load(PARTIAL_B, at, mask, dtype), w, None)", "sum_g += load(PARTIAL_B, at, mask, dtype)"),
    ],
    (f"{CPU}/planes.h", NATIVE): [("m.m2 + m.count * (m.mean - mean) * (m.mean - mean)", "m.m2")],
    (f"{CPU}/pixels.h", NATIVE): [("m2[c] += q + k * (m - mean[c]) * (m - mean[c]);", "m2[c] += q;")],
    (f"{CPU}/channels.h", NATIVE): [
        ("m = {m.g / count, m.g_xhat / count};", "m = {m.g, m.g_xhat / count};"),
        ("if (!training) means = {};", ""),
        ("sizeof(T) >= 4 || this->affine.activation == Activation::relu", "true"),
    ],
    (f"{CPU}/channel_sums.cpp", NATIVE): [
        ("delta * delta * cross;", "0;"),
        ("if (!far) return false;", "return false;"),
    ],
    (f"{CPU}/channel_tiles.cpp", NATIVE): [
        ("if constexpr (kSkip) return u + skip;", ""),
        ("if constexpr (kGate == Gate::leaky_relu) return u > 0 ? v : slope * v;", ""),
    ],
    (f"{CPU}/scan_tiles.cpp", SCAN): [
        ("+ cross * d * d) : var;", ") : var;"),
        ("finite(static_cast<C>(4 * (spread + value * value)));", "true;"),
        ("state_mean[i] = counts ? mean + rate * d : mean;", "state_mean[i] = mean + rate * d;"),
        ("2 * to.bias[i] * xhat)", "to.bias[i] * xhat)"),
        ("(w * of_g - q * e * xhat) * r", "w * of_g * r"),
        ("e - q * square * e + w * of_gx", "e - p * square * e + w * of_gx"),
        ("finite(square) & finite(w * of_g) & finite(w * of_gx);", "true;"),
        ("w * w * share * gain + pe", "pe"),
    ],
    (f"{CPU}/online_backward.h", SCAN): [("kappa[i] *= a.gain[first + i];", ";")],
    (f"{CPU}/rule_tiles.cpp", RULES): [
        ("(past ? m.long_term[first + i] : recent)", "m.long_term[first + i]"),
        ("k.shift[i] = w * k.d[i] + b;", "k.shift[i] = k.d[i] + b;"),
        ("r < least ? least : ", ""),
    ],
    (f"{CPU}/streaming_norm.cpp", RULES): [
        ("(slopes ? b * slopes[first + i] : 0)", "0"),
        ("(slopes ? std::pow(scale, 1 - p) : 1 / scale)", "1 / scale"),
    ],
    (f"{REFERENCE}/weight_norm.py", f"{WITNESS} -k weight_norm"): [
        ("filters = filters * r.unsqueeze(1)\n", "pass\n"),
        ("(d - filters * along.unsqueeze(1))", "d"),
        ("torch.where(norm > 0, 1 / norm, 0)", "1 / norm"),
    ],
    (f"{REFERENCE}/weight_standardization.py", f"{WITNESS} -k weight_standardization"): [
        ("d - d.mean(1, keepdim=True) - xhat", "d - xhat"),
        ("inverse_root(filters, 1, eps).squeeze(1)", "inverse_root(filters, 1, 0.0).squeeze(1)"),
    ],
    (f"{REFERENCE}/normprop.py", WEIGHTS): [
        ("(f * scale + shift).clamp(low, high)", "f * scale + shift"),
        ("- y * (a + (1 - a) / math.pi) / (2 * c1)", ""),
        ("(1 - f * f).clamp(min=0)", "1 - f"),
        ("torch.where(f > 0, 1.0, f + 1)", "torch.where(f > 0, 1.0, f)"),
        ("-torch.expm1(-f.clamp(min=0))", "torch.sigmoid(f)"),
        ("inner, outer = 1 / 6 if", "inner, outer = 1.0 if"),
    ],
    (f"{OPS}/_normprop.py", WEIGHTS): [
        ("at += 4 * direction * ulp", "at -= 4 * direction * ulp"),
        ("and leak <= 0)", "and leak < -9)"),
        ("SMOOTH and dtype.itemsize > 2", "SMOOTH and dtype.itemsize > 9"),
        ("[n for t in reversed(total) for n in (0, t % 2)]", "[n for t in reversed(total) for n in (t % 2, 0)]"),
    ],
    (f"{OPS}/normprop.py", WEIGHTS): [
        ("input = input.to(torch.get_autocast_dtype(input.device.type))", "pass"),
        ("ours = not (watched(u) or u._is_view())", "ours = False"),
    ],
    (f"{OPS}/_filters.py", f"{EAGER.split(' -k')[0]} -k 'weight and reference'"): [
        ("key=lambda d: -weight.stride(d)", "key=lambda d: weight.stride(d)"),
        ("back = sorted(range(len(dims)), key=dims.__getitem__)", "back = dims"),
    ],
    (f"{OPS}/weight_norm.py", WEIGHTS): [
        ("torch.autograd.graph.increment_version(weight)", "pass"),
        ("weight.copy_(shaped(filters, weight, order(weight, 0)))", "pass"),
    ],
    ("normkernels/modules/normprop.py", WEIGHTS): [
        (
            "[p for t in reversed(total) for p in (t // 2, t - t // 2)]",
            "[p for t in total for p in (t // 2, t - t // 2)]",
        ),
    ],
    ("normkernels/modules/weight_norm.py", WEIGHTS): [
        ("            t.copy_(value)\n", "            pass\n"),
        ("shift = -mean / std if", "shift = mean / std if"),
        ("if parametrize.is_parametrized(module, name):\n        fail", "if False:\n        fail"),
        ("    check_weight(function, name, found)\n", ""),
        ("isinstance(dim, int) and -1", "-1"),
        ('old = [f"{prefix}{name}_{part}" for part in "gv"]', 'old = [f"{prefix}{name}_{part}" for part in "vg"]'),
    ],
    ("normkernels/data_norm.py", WEIGHTS): [
        (
            " + distance.square() * (len(x) * (count - len(x)) / count)",
            "",
        ),
        ("+ share * (1 - share) * distance.square()", ""),
        ("torch.where(seen == 0, 1.0, self.momentum)", "torch.where(seen < 0, 1.0, self.momentum)"),
        ("safe = torch.where(_constant(mean, var), 1, var)", "safe = var"),
    ],
    ("normkernels/fold.py", WEIGHTS): [
        ("return pending.scale.numel() == 1", "return True"),
        ("counts_zeros = any(padding) and module.count_include_pad", "counts_zeros = False"),
    ],
    ("normkernels/_folding.py", WEIGHTS): [
        ("    if any(pads) and value.numel() > 1:\n        return None\n", "    value = value[:1]\n"),
        ("return [pad(tuple(pads), value.item()), layer]", "return [pad(tuple(pads), 0.0), layer]"),
        ("if type(layer) not in (nn.Linear, *KINDS.values()):", "if False:"),
    ],
    ("normkernels/moments.py", WEIGHTS): [("(1 - slope) * (1 - slope) / math.pi) / 2", "(1 - slope) / math.pi) / 2")],
    (f"{OPS}/_recurrent.py", f"{WITNESS} -k 'packed and (rnn or gru or lstm)'"): [
        ("first[below:size]", "first[: size - below]"),
        ("values[end : end + below]", "values[at : at + below]"),
        ("values[at - above :][:size]", "values[at - size :][:size]"),
    ],
    (f"{OPS}/_recurrent.py", "tests/test_recurrent.py -k copy_nothing"): [
        ("    if device == batch_sizes.device:\n        return", "    if True:\n        return"),
    ],
    ("normkernels/validate.py", "tests/test_validate.py"): [
        ("self.samples += other.samples", ""),
        ('(other.status == "error", other.worst) >= (self.status == "error", self.worst)', "True"),
        ("samples[first::shares]", "samples[first + 1 :: shares]"),
        ("return 1 if any(r.bad for r in results.values()) else 130 if interrupted else 0", "return 0"),
        ("            _write(args.json, results)\n", ""),
        ("                return\n\n\n@contextmanager", "                pass\n\n\n@contextmanager"),
    ],
    ("bench/step.py", "tests/test_gpu_run.py"): [
        ("process.send_signal(signal.SIGINT)", "pass"),
        ("code == 1 or LOST.search(text)", "code == 1"),
        ('"pytest" in self.command and not', "False and not"),
        ("min(self.limit, deadline - start)", "self.limit"),
    ],
    ("bench/record.py", "tests/test_gpu_run.py"): [
        ('step.status = "interrupted"', "pass"),
        ("1 if any(s.failed for s in self.steps) else 2 if", "2 if"),
        (
            "        self.tails: dict[str, list[str]] = {}\n        self.write()",
            "        self.tails: dict[str, list[str]] = {}",
        ),
    ],
    ("bench/gpu.py", "tests/test_gpu_run.py"): [("if step.native and not built:", "if False:")],
    (f"{OPS}/_recurrent.py", RECURRENT): [
        ("found.flip(0) if reverse else found", "found"),
        ("unbiased = var * (sizes / (sizes - 1))", "unbiased = var"),
        ("(1 - momentum) ** left + arrived", "(1 - momentum) + arrived"),
    ],
    (f"{OPS}/_step_norm.py", RECURRENT): [("running.update(mean, var, rows, momentum, reverse)", "pass")],
    (f"{REFERENCE}/_recurrent.py", RECURRENT): [
        ("(g - g.mean(dims, keepdim=True) - xhat", "(g - xhat"),
        ("buffer.shape[0] == total", "True"),
    ],
    (f"{REFERENCE}/layer_norm_gru.py", RECURRENT): [
        ("dn * q_n * r * (1 - r)", "dn * q_n * r"),
        ("(dh_new * z + of_a[rows] @ weight_hh)", "(of_a[rows] @ weight_hh)"),
    ],
    (f"{REFERENCE}/layer_norm_lstm.py", RECURRENT): [
        ("dcell = dcell + (dc[:n] if raw_cells is None else 0)", "pass"),
        ("(dc[:n] if cell_mean is None or raw_cells is not None else 0)", "dc[:n]"),
    ],
    ("normkernels/modules/_recurrent.py", RECURRENT): [
        ("states if order is None else tuple(s.index_select(1, order) for s in states)", "states"),
        ("layer + 1 < self.num_layers", "layer < self.num_layers"),
        ("reverse=direction == 1", "reverse=False"),
        ("None if bias_ih is None else bias_ih + bias_hh", "bias_hh"),
        ("if not any(prefix + name in state_dict for name in norms):", "if True:"),
        ("torch.full_like(t, self._first(name), **made) if t.is_meta else", ""),
        ("if t.is_meta else t.to(**made)", "if t.is_meta else t"),
    ],
    ("normkernels/modules/_layer_norm_recurrent.py", RECURRENT): [
        ("sizes = [2 * self.hidden_size, self.hidden_size]", "sizes = [self.hidden_size, 2 * self.hidden_size]"),
    ],
    ("normkernels/modules/_batch_norm_recurrent.py", RECURRENT): [
        (
            "(torch.arange(len(counts), device=counts.device) <= last)",
            "(torch.arange(len(counts), device=counts.device) < 0)",
        ),
        ("torch.where(unseen, buffer[last], buffer)", "buffer"),
        ("training = self.training or not self.track_running_stats", "training = self.training"),
    ],
}
MUTATIONS = [Mutation(*key, *change) for key, changes in TABLE.items() for change in changes]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the mutations whose file contains this")
    parser.add_argument("--native", action="store_true", help="those of csrc/cpu too: each rebuilds the extension")
    args = parser.parse_args()
    chosen = [m for m in MUTATIONS if args.only in m.file and (args.native or not m.file.startswith("csrc"))]
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of_the_tree(Path(folder))
        for tests in sorted({m.tests for m in chosen}):
            if outcome_of(tests, tree) != "survived":
                CONSOLE.print(f"these must pass before anything is broken: pytest {tests}", style="red")
                return 1
        for mutation in track(chosen, description="mutations", console=CONSOLE):
            outcome = try_out(mutation, tree)
            bad += outcome != "killed"
            colour = "green" if outcome == "killed" else "red"
            CONSOLE.print(f"[{colour}]{outcome:9}[/] {mutation.file}", end=": ")
            CONSOLE.print(f"{mutation.old.strip()}  ->  {mutation.new.strip()}", markup=False, highlight=False)
    CONSOLE.print(f"{len(chosen)} mutations, {bad} that no test noticed or that no longer apply")
    return int(bad > 0)


def copy_of_the_tree(folder: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, folder / name)
    return folder


def try_out(mutation: Mutation, tree: Path) -> str:
    """killed, survived, or stale: the line is not there (any more) exactly once."""
    path = tree / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        return "stale"
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        if mutation.file.startswith("csrc") and subprocess.run(build(), cwd=tree, capture_output=True).returncode:
            return "no build"
        return outcome_of(mutation.tests, tree)
    finally:
        path.write_text(text)


def build() -> list[str]:
    return [sys.executable, "setup.py", "build_ext", "--inplace"]


def outcome_of(tests: str, tree: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = f"{sys.executable} -m pytest -x -q {tests}"
    status = subprocess.run(command, cwd=tree, capture_output=True, env=environment, shell=True).returncode
    return "killed" if status >= 128 else {0: "survived", 1: "killed"}.get(status, "no tests")  # a crash tells too


if __name__ == "__main__":
    sys.exit(main())
