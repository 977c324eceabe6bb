"""Small models of other libraries with random weights, those that are installed; nothing is downloaded."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn


class Model(NamedTuple):
    """A model, and an input for it."""

    name: str
    module: nn.Module
    input: torch.Tensor

    def __call__(self, module: Callable[..., Any]) -> torch.Tensor:
        """The first tensor that ``module``, a copy perhaps, or what calls it, makes of the input."""
        found = module(self.input, 7) if "diffusers" in self.name else module(self.input)
        return found if isinstance(found, torch.Tensor) else found[0]


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


def models() -> Iterator[Model]:
    """All of them, one at a time."""
    yield Model("UNet, group norm", UNet(), torch.randn(1, 3, 32, 32))
    for library in (_timm, _language, _gated, _vision, _diffusers):
        try:
            yield from library()
        except ImportError:
            continue


def _timm() -> Iterator[Model]:
    import timm

    for name in ("vit_tiny_patch16_224", "resnet18", "regnetx_002", "convnext_atto"):
        more: dict[str, Any] = {"img_size": 64} if name.startswith("vit") else {}
        yield Model(f"timm {name}", timm.create_model(name, num_classes=10, **more), torch.randn(2, 3, 64, 64))
    group_norm = functools.partial(timm.layers.GroupNorm, num_groups=8)
    grouped = timm.create_model("test_resnet", num_classes=10, norm_layer=group_norm)
    yield Model("timm test_resnet, group norm", grouped, torch.randn(2, 3, 64, 64))


def _language() -> Iterator[Model]:
    import transformers as hf

    tokens = torch.randint(0, 1000, (2, 32))
    small: dict[str, Any] = {"vocab_size": 1000, "hidden_size": 128, "intermediate_size": 512, "pad_token_id": 0}
    small |= {"num_hidden_layers": 4, "num_attention_heads": 4}
    few: dict[str, Any] = small | {"num_key_value_heads": 2, "head_dim": 32}
    yield Model("BERT", hf.BertModel(hf.BertConfig(**small)), tokens)
    yield Model("GPT-2", hf.GPT2Model(hf.GPT2Config(vocab_size=1000, n_embd=128, n_layer=4, n_head=4)), tokens)
    yield Model("Llama", hf.LlamaModel(hf.LlamaConfig(**few)), tokens)
    yield Model("Mistral", hf.MistralModel(hf.MistralConfig(**few)), tokens)
    yield Model("Qwen3", hf.Qwen3Model(hf.Qwen3Config(**few)), tokens)
    yield Model("Gemma3", hf.Gemma3TextModel(hf.Gemma3TextConfig(**few)), tokens)


def _gated() -> Iterator[Model]:
    """State space models and linear attention: a gate comes after their norms, in Mamba-2 before them."""
    import transformers as hf

    tokens = torch.randint(0, 1000, (2, 32))
    small: dict[str, Any] = {"vocab_size": 1000, "hidden_size": 128, "num_hidden_layers": 4, "pad_token_id": 0}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256}
    delta = {f"linear_{k}": 32 for k in ("key_head_dim", "value_head_dim")}
    delta |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "head_dim": 32}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    experts |= {"shared_expert_intermediate_size": 64}
    qwen = hf.Qwen3NextConfig(**small, **heads, **delta, **experts)
    yield Model("Qwen3-Next", hf.Qwen3NextModel(qwen), tokens)
    ssm: dict[str, Any] = {"mamba_d_ssm": 256, "mamba_n_heads": 8, "mamba_d_head": 32, "mamba_d_state": 32}
    ssm |= {"mamba_rms_norm": True, "mamba_norm_before_gate": True, "mamba_chunk_size": 16}
    yield Model("Falcon-H1", hf.FalconH1Model(hf.FalconH1Config(**small, **heads, **ssm)), tokens)
    state: dict[str, Any] = {"num_heads": 8, "head_dim": 32, "state_size": 32, "n_groups": 1, "chunk_size": 16}
    mamba = hf.Mamba2Config(**small, **state, bos_token_id=1, eos_token_id=2)
    yield Model("Mamba-2", hf.Mamba2Model(mamba), tokens)


def _vision() -> Iterator[Model]:
    import transformers as hf

    image = torch.randn(2, 3, 64, 64)
    sizes: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "image_size": 64}
    yield Model("ViT", hf.ViTModel(hf.ViTConfig(num_attention_heads=4, **sizes)), image)
    stages: dict[str, Any] = {"hidden_sizes": [32, 64, 96, 128], "depths": [2, 2, 2, 2]}
    basic = hf.ResNetConfig(embedding_size=32, layer_type="basic", **stages)
    yield Model("ResNet", hf.ResNetForImageClassification(basic), image)
    yield Model("ConvNeXt", hf.ConvNextForImageClassification(hf.ConvNextConfig(**stages)), image)


def _diffusers() -> Iterator[Model]:
    import diffusers

    blocks: dict[str, Any] = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
    blocks |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    unet = diffusers.UNet2DModel(sample_size=32, **blocks)
    yield Model("diffusers UNet", unet, torch.randn(1, 3, 32, 32))
