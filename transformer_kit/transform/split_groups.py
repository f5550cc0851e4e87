"""Splits grouped linear layers into one linear layer for each group, so that weights can be packed or quantized.

    model = split_groups(model)   # for inference on a CPU

A group's layer runs only if the group has rows, so a token loads the weights of its own experts alone.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from registry.grouped import GroupedLinear, bounds, current_offsets
from transformer_kit.transform.linear_layers import swapped_groups

if TYPE_CHECKING:
    from transformer_kit.model.model import Model


class SplitLinear(nn.ModuleList):
    """One linear layer for each group of rows."""

    def __init__(self, grouped: GroupedLinear) -> None:
        """Shares the memory of `grouped`'s weights."""
        super().__init__(_layer(grouped, group) for group in range(grouped.n_groups))
        self.out_features = grouped.out_features

    def forward(self, x: Tensor) -> Tensor:
        """x (N, ..., in) -> (N, ..., out)."""
        offsets = current_offsets(len(self), x)
        rows = x.flatten(0, -2)
        pieces = [self[group](rows[begin:end]) for group, begin, end in bounds(offsets)]
        y = torch.cat(pieces) if pieces else x.new_empty(0, self.out_features)
        return y.view(*x.shape[:-1], self.out_features)


def split_groups(model: "Model") -> "Model":
    """Swap grouped linear layers for as many linear layers as there are groups."""
    swapped_groups(model, SplitLinear)
    return model


def _layer(grouped: GroupedLinear, group: int) -> nn.Linear:
    with torch.device("meta"):
        layer = nn.Linear(grouped.in_features, grouped.out_features, bias=grouped.bias is not None)
    layer.weight = nn.Parameter(grouped.weight.detach()[group], requires_grad=False)
    if grouped.bias is not None:
        layer.bias = nn.Parameter(grouped.bias.detach()[group], requires_grad=False)
    return layer.train(grouped.training)
