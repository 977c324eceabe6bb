"""``python -m bench.models``: training steps of small models with torch's norms, and with ours in their place.

Models of timm and transformers, if they are installed, with random weights; one thread, in turns, medians. Ours by
``normkernels.convert``, without and with what it fuses; torch again says how far a ratio can be trusted.
"""

import argparse
import contextlib
import copy
import io
import sys
from collections.abc import Callable, Iterator

import torch
from rich.table import Table
from torch import nn

import normkernels as nk

from .host import turns
from .tables import console


def converted(model: nn.Module, fuse: bool) -> nn.Module:
    """A copy with our norms."""
    model = copy.deepcopy(model)
    with contextlib.redirect_stdout(io.StringIO()):
        nk.convert(model, fuse=fuse)
    return model


class UNet(nn.Module):
    """Of the diffusion kind, one level: residual blocks of group norm, SiLU and 3x3 convolutions."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.down, self.up = nn.Conv2d(width, width, 3, 2, 1), nn.Upsample(scale_factor=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(m for _ in range(2) for m in (nn.GroupNorm(8, width), nn.SiLU(), conv(width))))
            for _ in range(6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x + self.blocks[1](x + self.blocks[0](x))
        y = self.down(x)
        y = y + self.blocks[3](y + self.blocks[2](y))
        x = x + self.up(y)
        return self.last(x + self.blocks[5](x + self.blocks[4](x)))


def conv(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1)


def models() -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """(name, model, an input)"""
    yield "UNet, group norm", UNet(), torch.randn(1, 3, 32, 32)
    try:
        import timm
    except ImportError:
        timm = None
    sizes = {"vit_tiny_patch16_224": 64, "resnet18": 64, "regnetx_002": 64, "convnext_atto": 64}
    for name, size in sizes.items() if timm else ():
        more = {"img_size": size} if name.startswith("vit") else {}
        yield name, timm.create_model(name, num_classes=10, **more), torch.randn(2, 3, size, size)  # type: ignore
    try:
        from transformers import BertConfig, BertModel, GPT2Config, GPT2Model
    except ImportError:
        return
    tokens, small = torch.randint(0, 1000, (2, 32)), {"vocab_size": 1000, "hidden_size": 128, "intermediate_size": 512}
    bert = BertConfig(num_hidden_layers=4, num_attention_heads=4, **small)
    yield "BERT, 4 layers", BertModel(bert), tokens
    yield "GPT-2, 4 layers", GPT2Model(GPT2Config(vocab_size=1000, n_embd=128, n_layer=4, n_head=4)), tokens


def step(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad()
        y = model(x)
        (y if isinstance(y, torch.Tensor) else y.last_hidden_state).square().mean().backward()

    return run


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser("python -m bench.models", description=__doc__).parse_args(argv)
    torch.set_num_threads(1)
    out = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("model", "torch ms", "torch again", "ours", "ours fused"):
        out.add_column(name, justify="left" if name == "model" else "right")
    for name, model, x in models():
        variants = model, copy.deepcopy(model), converted(model, fuse=False), converted(model, fuse=True)
        first, *others = turns(*(step(m.train(), x) for m in variants), repeats=1, warm_up=3)  # the first are recorded
        out.add_row(name, f"{first / 1000:.1f}", *(f"{us / first:.3f}" for us in others))
    console().print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
