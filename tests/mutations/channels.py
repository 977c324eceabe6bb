"""Batch, group and instance norm."""

from mutations._tests import CHANNELS, CLUSTERS, EDGES, FAST, GATED_CHANNELS, LOCAL, NATIVE, STATE, WITNESS

TABLE = {
    ("reference", WITNESS): [
        (
            "return mean.reshape(shape), z.square().mean((1, 3, 4))",
            "return mean.reshape(shape), z.square().sum((1, 3, 4))",
        ),
        ("g = g - c1 - xhat * c2", "g = g - c1"),
        ("(a.dweight, (du * xhat).sum((0, 2)))", "(a.dweight, du.sum((0, 2)))"),
        ("return xhat if skip is None else xhat + skip.to(xhat.dtype)", "return xhat"),
    ],
    ("reference/channels", WITNESS): [
        ("if training:", "if True:"),
        ("dy * u * derivative(name,", "u * derivative(name,"),
    ],
    ("reference", f"{LOCAL} -k reference"): [
        ("sum_dy_xhat.copy_((du * xhat).sum((0, 2)))", "sum_dy_xhat.copy_(du.sum((0, 2)))"),
        ("mean_dy[:, None] - xhat *", "mean_dy[:, None] - 0 * xhat *"),
        ("if a.dskip is not None: a.dskip.copy_(dskip) g = du", "g = du"),
    ],
    ("reference", STATE): [("torch.float64 if x.dtype == torch.float64 else torch.float32", "x.dtype")],
    ("ops", STATE): [
        ('kept = None if activation == "identity" else skip', "kept = skip"),
        ("copy = statistic_dtype(input), torch.is_grad_enabled()", "copy = statistic_dtype(input), False"),
        ("(y, *moments(x.detach(), shape))", "(y, *moments(2 * x.detach(), shape))"),
        (
            "return input.new_empty_strided(input.shape, (channels, 1, *strides[:-1]))",
            "return torch.empty_like(input, memory_format=torch.contiguous_format)",
        ),
        ("var[0] * (count / (count - 1))", "var[0]"),
        ("if training and count > 0 and", "if training and"),
        ("mean.mean(0), momentum", "mean[0], momentum"),
        ("var.mean(0) * (count / (count - 1))", "var.mean(0)"),
    ],
    ("ops/channels", STATE): [
        ("grads[1] = dy", "grads[1] = None"),
    ],
    ("modules", STATE): [
        ("float(seen) + 1.0", "float(seen) + 2.0"),
        ("training or self.running_mean is None", "training"),
    ],
    ("modules/batch_norm", STATE): [
        ("self.training and not self.frozen_statistics", "self.training"),
    ],
    ("modules", "tests/test_freezing.py"): [
        ("if not self.frozen_statistics:", "if True:"),
        ("if self.frozen_statistics: self._forget()", "pass"),
        ("if self.frozen_affine and not any(", "if not any("),
        ("if self.frozen_affine and not any(", "if self.frozen_affine or not any("),
        ('"affine" in frozen)', "True)"),
    ],
    ("ops/images", "tests/test_images.py"): [
        ("flat(t[n])", "flat(t[0])"),
        ("lies_last(input) and prod(input.shape[2:]) > 1", "lies_last(input)", "as images of one pixel: more calls"),
        ("lies_last(input) and prod(input.shape[2:]) > 1", "False"),
        ("[t[n : n + 1] for t in tables]", "[t[:1] for t in tables]"),
        ('if activation == "identity" and wanted[1]: grads[1] = dy', ""),
    ],
    ("modules/adapted", "tests/test_images.py"): [
        ("None if bias is None else bias * (1 + scale)", "bias"),
        ("shift if bias is None else bias + shift", "shift"),
        ("tuple(t.shape) != shape", "False"),
    ],
    ("modules", "tests/test_conversions.py"): [
        ("if self.activation is not None:", "if False:"),
        ("elif self.frozen_statistics:", "elif False:"),
    ],
    ("cpu", "tests/test_small_planes.py"): [
        ("about += s.a * share;", ""),
        ("if (a.dskip && !a.of.opener) store_tile(du + p * S, a.dskip + from, n);", ""),
        ("scales.at(p), u, count, g.S);", "scales.at(0), u, count, g.S);"),
        ("return of(p + k);", "return of(k);"),
        ("return of(std::min(p + k, planes - 1));", "return of(planes - 1);"),
        ("((k ^ kStep) +", "(k +"),
        ("sums.b += last ? v.b : V{};", "sums.b += v.b;"),
        ("off <= kFar<C> * (found[k].b - off)", "true"),
        ("if (!squares_fit<T>(m2, static_cast<int64_t>(count), a.of.eps)) return false;", ""),
        ("if (!far) return false;", "return false;"),
        ("std::min(many, planes - p)", "many"),
        ("while (g.N % images) images--;", ""),
        ("std::max<int64_t>(1, wide / columns),", "std::max<int64_t>(1, kStep / columns),"),
        ("drain(p, totals.data(), totals.size());", ""),
        ("to_b[c] = from_b[2 * c] + from_b[2 * c + 1];", "to_b[c] = from_b[2 * c];"),
        ("use(first + g, sums);", "use(g, sums);"),
        ("(chunk + 1) * g.B / lines; line++", "chunk * g.B / lines + 1; line++"),
        ("static_cast<compute_t<Out>>(f(first + i,", "static_cast<compute_t<Out>>(f(i,"),
    ],
    ("ops/inlined_channels", "tests/test_inlined_channels.py"): [
        ("rest = near.sum(OVER, keepdim=True) * share", "rest = 0 * first"),
        ("rstd, -rest * rstd)]", "rstd, 0 * rstd)]"),
        ("zip(reversed(sums), (weight, bias), strict=True)", "zip(sums, (weight, bias), strict=True)"),
        ("(sums if parameter.dim() == 2 else sums.sum(0))", "sums.sum(0)"),
        ("dy * u * derivative(name, gate, settings.slope)", "dy * derivative(name, gate, settings.slope)"),
        ("dx = du * scale - c1 - xhat * c2", "dx = du * scale - c1"),
        ("if differentiated_again():", "if False:"),
    ],
    ("ops/ways", "tests/test_seen_whole.py"): [
        ("return whole(_backends._request, _closed_forms, *args", "return whole(None, False, *args"),
    ],
    ("modules/one_call", "tests/test_one_call.py"): [
        ('kind.__module__.startswith("normkernels.") and', ""),
        ("_layer(_backends._request, False, said", "_layer(None, False, said"),
        ("weight = self.weight if", "weight = None if"),
    ],
    ("modules/batch_norm", "tests/test_what_is_said.py"): [
        ("""("training", "frozen_statistics", "track_running_stats",""", """("training", "track_running_stats","""),
        (
            """if self.frozen_statistics or not self.training: return [*super().tensors_read(), "running_mean",""",
            """if self.frozen_statistics or not self.training: return [*super().tensors_read(),""",
        ),
    ],
    ("modules/layer_norm_2d", "tests/test_what_is_said.py"): [
        ("""("eps", "extras")""", """("eps", "extras", "normalized_shape")"""),
    ],
    ("modules/rms_norm", "tests/test_what_is_said.py"): [
        ("""return ["weight", "bias"] if self._parameters""", """return ["weight"] if self._parameters"""),
    ],
    ("modules/extras", "tests/test_one_call.py"): [
        ("""if name == "__class__" or name in self.SAID:""", "if False:"),
        ("None if torch.compiler.is_compiling() else say(module)", "vars(module).get('_said')"),
    ],
    ("ops/whole", "tests/test_seen_whole.py"): [
        ("raise (_unsupported(better) if torch.compiler.is_compiling() else better) from None", "raise"),
    ],
    ("ops/whole", "tests/test_compiled_caches.py"): [
        ("run.__name__ = run.__qualname__ = public.__name__", "run.__name__ = run.__qualname__"),
        ("if cacheable is not None and not ours.items() <= cacheable.items():", "if False:"),
        ("config.unsafe_marked_cacheable_functions = cacheable | ours", "cacheable.update(ours)"),
    ],
    ("csrc", "tests/test_leaks.py -k layer_norm"): [
        ("TORCH_ERROR_CODE_CHECK(torch_delete_string(text.handle));", ""),
    ],
    ("cpu", GATED_CHANNELS): [
        ("of.opener + at, u, du, dskip ? dskip + at : nullptr, n,", "of.opener + at, u, du, nullptr, n,"),
        ("a.of.complete(at + p * g.S, u,", "a.of.complete(at, u,"),
        ("a.through(from, u, du + p * S, n);", "a.through(at, u, du + p * S, n);"),
        (".skip = g.gated ? nullptr : pointer<T>(g.skip)", ".skip = pointer<T>(g.skip)"),
    ],
    ("ops/channels", GATED_CHANNELS): [("if skip is not None and gate is not None:", "if False:")],
    ("triton/channels_tiles", CHANNELS): [
        ("beside = dy * affine(xhat, w, b) * derivative", "beside = dy * affine(xhat, w, None) * derivative"),
        ("y = u * activation(gate, ACT, SLOPE)", "y = u"),
    ],
    ("cpu", f"{EDGES} -k native"): [
        ("shift[c] = k.shift * w(c);", "shift[c] = 0;"),
        ("const double rest = means.g + shift * means.g_xhat;", "const double rest = means.g;"),
        ("sums.b * rstd[g] + sums.a * shift[g]", "sums.b * rstd[g]"),
        ("b * rstd[g] + a * shift[g];", "b * rstd[g];"),
        ("if (!training || mean_dy || centre) return false;", "return false;"),
        ("bool wide(int64_t statistic) const { return", "bool wide(int64_t statistic) const { return false && "),
    ],
    ("cpu", "tests/test_channels.py -k past_the_caches"): [
        ("if (keeps_dskip() && far) copy_nontemporal(", "if (false) copy_nontemporal("),
        ("ask(r, j, end - j);", "if (j) continue;"),
    ],
    ("cpu", NATIVE): [
        ("totals[i] += sums[i];", "totals[i] = sums[i];"),
        ("if (i < n) f(n - kPaired);", ""),
        ("if constexpr (kSkip) return u + twos(skip + i);", ""),
        ("through<kGate>(scaled<kSkip>(x, skip, k, i), v, slope)", "v"),
        ("f(0, d.odd, v.odd)}, dx + i)", "f(0, d.odd, d.odd)}, dx + i)"),
        ("return add_rows<2 * kBand>(rows, a, b, ask, f);", "return add_rows<kBand>(rows, a, b, ask, f);"),
        ("scale[c] = k.scale * w(c);", "scale[c] = k.scale;"),
        ("a[i] = k.a.value * w(i);", "a[i] = k.a.value;"),
        ("groups.D, groups.mean[k]);", "groups.D, groups.mean[0]);"),
        ("m.m2 + m.count * (m.mean - mean) * (m.mean - mean)", "m.m2"),
        ("m2[c] += q + k * (m - mean[c]) * (m - mean[c]);", "m2[c] += q;"),
        ("m = {m.g / of.grid.count(), m.g_xhat /", "m = {m.g, m.g_xhat /"),
        ("if (!training) std::fill(means.begin(), means.end(), Means{});", ""),
        ("sizeof(T) >= 4 ||", "true ||"),
        ("delta * delta * cross;", "0;"),
        ("if constexpr (kSkip) return u + skip;", ""),
        ("if constexpr (kGate == Gate::leaky_relu) return u > 0 ? v : C(slope * v);", ""),
    ],
    ("triton", CHANNELS): [
        ("x = tl.where(mask, x - broad(mean, 3), 0.0) rest, squares", "x = x - broad(mean, 3)\n    rest, squares"),
        ("means = B * tl.cdiv(G, BLOCK_G)", "means = tl.cdiv(G, BLOCK_G)"),
        ("tl.rsqrt(rstd + number(EPS, rstd.dtype))", "tl.rsqrt(rstd)"),
        ("sum_squares += distance * distance * count +", "sum_squares += "),
        ("second, block = program // blocks, program % blocks", "second, block = 0, program % blocks"),
        ("- broad(mean_g, 3) - xhat * broad(mean_gx, 3)", "- xhat * broad(mean_gx, 3)"),
        ("sum_g += affine(load(PARTIAL_B, at, mask, dtype), w, None)", "sum_g += load(PARTIAL_B, at, mask, dtype)"),
    ],
    ("triton", f"tests/test_backends.py -k 'streaming and triton and {FAST}'"): [
        ("rstd = 1 / tl.load(SCALE + at,", "rstd = tl.load(SCALE + at,"),
    ],
    ("triton/channels_sizes", CLUSTERS): [
        ("max(values // limit, min(z.most, values // EACH))", "values // limit"),
        ("max(values // limit, min(z.most, values // EACH))", "min(z.most, values // EACH)"),
        ("if z.last or z.itemsize == 8 or values <=", "if z.itemsize == 8 or values <="),
        ("if z.last or z.itemsize == 8 or values <=", "if z.last or values <="),
        ("values <= min(limit, ALONE)", "values <= limit"),
        ('{"num_ctas": r.num_ctas} if r.num_ctas > 1 else {}', "{}"),
    ],
    ("triton/base_clusters", CLUSTERS): [
        ("(int(major), int(minor)) >= VERSION and", ""),
        ("and capability >= CAPABILITY", ""),
        ("found if found > 1 and has_room(device) else 1", "found"),
        ("max(num_ctas, count // 16 * 16) if num_ctas > 2 else count", "count"),
        ("// num_ctas))", "))"),
    ],
    ("triton/channels_walks", CHANNELS): [
        ("program = tl.num_programs(0) - 1 - tl.program_id(0)", "program = 0 * tl.program_id(0)"),
        ("each = tiles - tl.where(positions < tail, 0, last)", "each = tiles - tl.zeros_like(positions)"),
    ],
    ("triton/channels_forward", CHANNELS): [
        ("squares += away * away * (1 - 1 / seen)", "squares += away * away"),
    ],
    ("triton/channels_merged_forward", CHANNELS): [
        ("distance * distance * count + squares", "squares"),
        ("at = ((batch * rows + row) * G", "at = (row * G"),
        ("each = C // G if FORM.LAST else 1", "each = C // G"),
        ("(channels // each - low // each)", "(channels // each)"),
    ],
    ("triton/channels_merged_backward", CHANNELS): [
        ("store(sums.dbias, db, channels, keeps)", "store(sums.dbias, dw, channels, keeps)"),
        ("keeps = there & (first == 0)", "keeps = there & (first != 0)"),
        ("at, mask = part * C + channels[:, None]", "at, mask = 0 * part + channels[:, None]"),
        ("mean_g = (db / count)[:, None]", "mean_g = db[:, None]"),
        ("steps=cdiv(cdiv(z.S, s.BLOCK_B) * z.N, parts)", "steps=cdiv(cdiv(z.S, s.BLOCK_B), parts)"),
    ],
    ("triton/channels_backward", CHANNELS): [
        ("dw += du * xhat", "dw += du"),
    ],
}
