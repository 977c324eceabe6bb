"""Models of transformers with our norms through Hugging Face's kernels; skipped where either is missing."""

import copy

import pytest
import torch

import normkernels as nk

kernels = pytest.importorskip("kernels")
transformers = pytest.importorskip("transformers")
if not transformers.utils.is_kernels_available():
    pytest.skip("this transformers takes other versions of kernels", allow_module_level=True)
SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
CONFIGS = {"Llama": {}, "Mistral": {}, "Qwen3": {}}
MODES = ["INFERENCE", "TRAINING", "TRAINING | TORCH_COMPILE"]


def model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SMALL | CONFIGS[kind])
    found = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        for p in found.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return found


def kernelized(plain: torch.nn.Module, mode: str) -> torch.nn.Module:
    found = copy.deepcopy(plain)
    names = [getattr(kernels.Mode, name) for name in mode.split(" | ")]
    with kernels.use_kernel_mapping(nk.kernel_mapping(), inherit_mapping=False):
        return kernels.kernelize(found, mode=names[0] if len(names) == 1 else names[0] | names[1], device="cpu")


def norms(found: torch.nn.Module) -> list[torch.nn.Module]:
    return [m for m in found.modules() if type(m).__name__.endswith("RMSNorm")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CONFIGS)
def test_models_compute_the_same(kind, mode):
    plain = model(kind)
    ours, tokens = kernelized(plain, mode), torch.arange(20).view(2, 10)
    assert {m.forward.__func__.__module__ for m in norms(ours)} == {"normkernels.hub"}
    results = []
    for m in (plain, ours):
        m.train("TRAINING" in mode)
        run = torch.compile(m, backend="aot_eager") if m is ours and "COMPILE" in mode else m
        loss = run(tokens, labels=tokens).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in m.parameters())])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_dtypes_are_those_of_the_model():
    plain = model("Llama")
    ours = kernelized(plain, "TRAINING")
    x = torch.randn(3, 32).bfloat16()
    for one, other in zip(norms(plain), norms(ours), strict=True):
        assert one(x).dtype == other(x).dtype == torch.float32
        assert one.bfloat16()(x).dtype == other.bfloat16()(x).dtype == torch.bfloat16
        torch.testing.assert_close(one(x), other(x))


def test_the_zero_centred_form():
    modeling = pytest.importorskip("transformers.models.qwen3_5.modeling_qwen3_5")
    torch.manual_seed(0)
    plain = modeling.Qwen3_5RMSNorm(32)
    torch.nn.init.normal_(plain.weight)
    ours, x = kernelized(torch.nn.Sequential(plain), "TRAINING"), torch.randn(5, 32)
    assert "normkernels" in ours[0].forward.__func__.__module__
    torch.testing.assert_close(ours(x), plain(x))
    assert ours(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["qwen3_next.Qwen3NextRMSNormGated", "kimi_linear.KimiLinearRMSNormGated"])
def test_the_gated_form(name):
    model, kind = name.split(".")
    modeling = pytest.importorskip(f"transformers.models.{model}.modeling_{model}")
    torch.manual_seed(0)
    plain = getattr(modeling, kind)(32)
    torch.nn.init.normal_(plain.weight)
    ours, x, gate = kernelized(torch.nn.ModuleList([plain]), "TRAINING")[0], torch.randn(5, 32), torch.randn(5, 32)
    assert "normkernels" in ours.forward.__func__.__module__
    torch.testing.assert_close(ours(x, gate), plain(x, gate))
    for wide in (gate, gate.bfloat16()):
        found, want = ours(x.bfloat16(), wide), plain(x.bfloat16(), wide)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, want, rtol=2**-6, atol=2**-6)
