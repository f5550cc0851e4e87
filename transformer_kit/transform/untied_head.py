"""A tied head as a linear layer that shares the embedding's weight, so that it can be packed or quantized."""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformer_kit.model.model import Model


def untied_head(model: "Model") -> "Model":
    """Give a head without a projection (`Head.out` is None) one whose weight is the embedding's."""
    table = model.embedding.weight
    if getattr(model.head, "out", table) is None and isinstance(table, nn.Parameter):
        with torch.device("meta"):
            out = nn.Linear(table.shape[1], table.shape[0], bias=False)
        out.weight = table
        model.head.out = out.train(model.training)
    return model
