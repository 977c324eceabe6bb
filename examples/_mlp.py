"""Deep perceptrons with one norm or none."""

import torch
from torch import nn

import normkernels as nk

WIDTH = 64
NONE, BATCH, LAYER, NORMPROP = "no norm", "batch norm", "layer norm", "NormProp"


def network(arm: str, depth: int, seed: int, dropout: float = 0.0) -> nn.Sequential:
    """Hidden layers of 64 with ReLU (and dropout), then a plain linear layer; arms start from the same weights."""

    def hidden() -> nn.Module:
        if arm == NONE:
            return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), *dropped)
        if arm == NORMPROP:
            return nn.Sequential(nk.NormPropLinear(WIDTH, WIDTH, "relu"), *dropped)
        norm = (nk.BatchNorm1d if arm == BATCH else nk.LayerNorm)(WIDTH, activation="relu")
        return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), norm, *dropped)

    dropped = [nn.Dropout(dropout)] if dropout else []
    model = nn.Sequential(*(hidden() for _ in range(depth)), nn.Linear(WIDTH, 10))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model
