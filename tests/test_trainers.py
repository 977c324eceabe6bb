"""Trainers of other libraries, where they are installed, run a converted model unchanged: as they do torch's."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import normkernels as nk
from bench.adoption import quietly
from bench.zoo import models

pytestmark = pytest.mark.filterwarnings("ignore")


def pair() -> tuple[nn.Module, nn.Module]:
    """The same small model with torch's norms, and with ours."""
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
    body = conv, nn.BatchNorm2d(8), nn.ReLU(), nn.GroupNorm(2, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    plain = nn.Sequential(*body, nn.LayerNorm(8), linear)
    ours = copy.deepcopy(plain)
    quietly(nk.convert, ours)
    return plain, ours


def data() -> DataLoader:
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(16, 3, 6, 6), torch.randint(0, 4, (16,))), batch_size=4)


def same(ours: nn.Module, plain: nn.Module, tolerance: float) -> None:
    state = plain.state_dict()
    for name, t in ours.state_dict().items():
        torch.testing.assert_close(t, state[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-5), ("bf16-mixed", 2e-2)])
def test_lightning(precision, tolerance, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    plain, ours = pair()
    for model in (plain, ours):
        lightning.Trainer(
            max_epochs=1, accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        ).fit(Module(model), data())  # fmt: skip
    same(ours, plain, tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("no", 1e-5), ("bf16", 2e-2)])
def test_accelerate(precision, tolerance):
    accelerate = pytest.importorskip("accelerate")
    plain, ours = pair()
    for model in (plain, ours):
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)  # it is one for each process
        accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
        prepared, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1), data())
        for x, labels in loader:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(prepared(x), labels))
            optimizer.step()
    same(ours, plain, tolerance)


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_the_trainer_of_transformers(bf16, tolerance, tmp_path):
    """With gradient checkpointing, and weight decay on what it decays."""
    hf, _ = pytest.importorskip("transformers"), pytest.importorskip("accelerate")
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "pad_token_id": 0}
    config = hf.LlamaConfig(num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, **sizes)
    torch.manual_seed(0)
    plain = hf.LlamaForCausalLM(config)
    ours = copy.deepcopy(plain)
    quietly(nk.convert, ours)
    tokens = torch.randint(1, 50, (16, 8))
    rows = [{"input_ids": t, "labels": t} for t in tokens]
    for model in (plain, ours):
        options = hf.TrainingArguments(
            str(tmp_path), max_steps=4, per_device_train_batch_size=4, use_cpu=True, bf16=bf16, weight_decay=0.1,
            gradient_checkpointing=True, report_to=[], save_strategy="no", disable_tqdm=True, learning_rate=1e-3,
        )  # fmt: skip
        hf.Trainer(model, options, train_dataset=rows).train()
    same(ours, plain, tolerance)


def test_what_is_decayed():
    """By the rule of transformers' trainer, in every model of the zoo."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    rule = pytest.importorskip("transformers.trainer").Trainer.get_decay_parameter_names
    for model in models():
        before = rule(None, model.module)
        quietly(nk.convert, model.module)
        assert rule(None, model.module) == before, model.name
