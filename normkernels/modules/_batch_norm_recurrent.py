"""Batch norm in recurrent layers: parameters, running statistics of each step, and the norm of the input's term."""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.types import Device

from normkernels import _checks
from normkernels.modules._normalised import in_dtype
from normkernels.modules._recurrent import Recurrent
from normkernels.modules._step_affine import affine_of_steps, of_slot, walk_in_runs
from normkernels.modules._wide_state import WideState
from normkernels.ops import _recurrent
from normkernels.ops._state import count, write
from normkernels.ops._step_norm import step_norm
from normkernels.ops._step_statistics import Statistics

SHOWN = {"norm_terms": "separate", "eps": 1e-5, "momentum": 0.1, "max_steps": 128, "track_running_stats": True,
         "gain": 0.1, "per_step_affine": False, "backend": None}  # fmt: skip


class BatchNormRecurrent(WideState, Recurrent):
    """Mixin of the layers; ``FUNCTION`` is that of a sequence, ``GATES`` of them lie in a weight."""

    GATES: int
    FUNCTION: Any
    OPTIONS: tuple[str, ...]  # attributes that the function takes under their names
    bias: Any
    norm_cell: str | None = None
    eps: float
    momentum: float
    max_steps: int
    track_running_stats: bool
    per_step_affine: bool = False

    def _set_up(self, switches: dict, device: Device, dtype: torch.dtype | None) -> None:
        name, wide = type(self).__name__, self.GATES * self.hidden_size
        _recurrent.check_cell_parameters(name, torch.empty(0), 0, switches.get("norm_cell"), None, None)
        separate = _recurrent.check_terms(name, switches["norm_terms"])
        if not isinstance(switches["max_steps"], int) or switches["max_steps"] < 1:
            _checks.fail(name, "max_steps", "be a positive int", switches["max_steps"])
        if not isinstance(switches["per_step_affine"], bool):
            _checks.fail(name, "per_step_affine", "be a bool", repr(switches["per_step_affine"]))
        for key, value in switches.items():
            setattr(self, key, value)
        norms = {"_ih": wide, "_hh": wide} if separate else {"": wide}
        norms |= {"_cell": self.hidden_size} if self.norm_cell is not None else {}
        if self.track_running_stats:
            for suffix in self.suffixes():
                for norm, size in norms.items():
                    zeros = torch.zeros(self.max_steps, size, device=device, dtype=dtype)
                    self.register_buffer(f"running_mean{norm}{suffix}", zeros)
                    self.register_buffer(f"running_var{norm}{suffix}", torch.ones_like(zeros))
                counts = torch.zeros(self.max_steps, device=device, dtype=torch.long)
                self.register_buffer(f"num_batches_tracked{suffix}", counts)
        sizes = {f"norm_weight{norm}": size for norm, size in norms.items()}
        sizes |= {"norm_bias_cell": self.hidden_size} if self.bias and self.norm_cell is not None else {}
        if self.per_step_affine:
            sizes |= {"norm_bias": wide} if self.bias else {}
            sizes = {parameter: (self.max_steps, size) for parameter, size in sizes.items()}
        self._add_norms(self.suffixes(), sizes, device, dtype)

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batch seen."""
        for name, buffer in self.named_buffers():
            buffer.fill_(self._first(name))

    def reset_parameters(self) -> None:
        """Torch's first values, ``gain`` and 0 of the norms, and forgotten statistics."""
        self.reset_running_stats()
        super().reset_parameters()

    def _statistics(self, norm: str, suffix: str) -> Statistics | None:
        if not self.track_running_stats:
            return None
        return Statistics(*(getattr(self, f"running_{key}{norm}{suffix}") for key in ("mean", "var")))

    def _reached(self, parameter: Any, suffix: str) -> Any:
        """In ``eval()`` steps that no batch has reached have the parameters of the last one, as its statistics."""
        if parameter is None or parameter.dim() == 1 or self.training or not self.track_running_stats:
            return parameter
        last = (getattr(self, f"num_batches_tracked{suffix}") > 0).sum().clamp(min=1) - 1
        return parameter[torch.arange(len(parameter), device=parameter.device).clamp(max=last)]

    def _layer(self, x, suffix, states, sizes, reverse) -> tuple[Tensor, ...]:
        training = self.training or not self.track_running_stats
        least = x.shape[1] if sizes is None else int(sizes[-1])
        if training and least == 1:
            rule = "have more than one row in every step in training (layer norm needs no batch)"
            _checks.fail(type(self).__name__, "input", rule, "a step of one row")
        norm_bias = self._reached(getattr(self, f"norm_bias{suffix}", None), suffix)

        def norm_input(p: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            rest = self._statistics("_ih", suffix), training, self.momentum, self.eps, reverse, self.backend
            if not self.per_step_affine:
                return step_norm(p, sizes, weight, bias, *rest)
            xhat = step_norm(p, sizes, None, None, *rest)
            return affine_of_steps(xhat, self._reached(weight, suffix), (bias, norm_bias), sizes, reverse)

        input, weight_hh, weight, bias = self._terms(x, suffix, norm_input)
        bias = bias if norm_bias is None or self.norm_terms == "separate" else bias + norm_bias
        parameters = {"weight": weight, "bias": bias}
        of_steps = [self._statistics("_hh" if self.norm_terms == "separate" else "", suffix)]
        if self.norm_cell is not None:
            of_steps.append(self._statistics("_cell", suffix))
            parameters |= {f"cell_{k}": getattr(self, f"norm_{k}_cell{suffix}", None) for k in ("weight", "bias")}
        running = [t for statistics in of_steps for t in statistics or (None, None)]
        parameters = {k: self._reached(t, suffix) for k, t in parameters.items()}
        options = {k: getattr(self, k) for k in self.OPTIONS} | {"training": training, "reverse": reverse}

        def walk(input: Tensor, states, sizes: Tensor | None, slot: int | None = None) -> tuple[Tensor, ...]:
            firsts = dict(zip(("h_0", "c_0"), states, strict=False))
            own, given = of_slot(running, parameters, slot)
            return self.FUNCTION(input, weight_hh, *own, batch_sizes=sizes, **firsts, **given, **options)

        call = functools.partial(walk_in_runs, walk, self.max_steps, reverse) if self.per_step_affine else walk
        found = call(input, [in_dtype(s, input.dtype) for s in states], sizes)
        if training and self.track_running_stats:
            self._track(len(x if sizes is None else sizes), suffix)
        return found

    def _track(self, steps: int, suffix: str) -> None:
        """Count the batch; steps that no batch has reached yet take the statistics of the last one of this batch."""
        counts, last = getattr(self, f"num_batches_tracked{suffix}"), min(steps, self.max_steps) - 1
        count(counts, (torch.arange(len(counts), device=counts.device) <= last).to(counts.dtype))
        unseen = (counts == 0).unsqueeze(1)
        for name, buffer in self.named_buffers():
            if name.startswith("running") and name.endswith(suffix):
                write(buffer, torch.where(unseen, buffer[last], buffer))
