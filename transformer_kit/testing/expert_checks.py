"""Checks of a feed-forward part as the expert of a mixture, with the weights of all experts in one tensor."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from registry.context import Context
from registry.experts import StackedExperts, experts_of
from transformer_kit.testing.carriers import D_MODEL, agree, strong_init
from transformer_kit.testing.checks import check
from transformer_kit.testing.place_checks import each

SHARES = (2, 0, 5, 1)
"""Number of tokens for each of four experts."""


@check("ffn")
def stacked_as_one_by_one(part: Any) -> None:
    """Stacked experts give the outputs and gradients of separate experts on their own tokens."""
    for what, module in each(part):
        experts = experts_of(partial(copy.deepcopy, module), len(SHARES))
        if isinstance(experts, StackedExperts):
            strong_init(experts)
            _compare(experts, module, what)


def _compare(experts: StackedExperts, one: Any, what: str) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(sum(SHARES), D_MODEL, generator=draw, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    context = Context.of(x[None])
    got = experts(x, torch.tensor(SHARES).cumsum(0).int(), context)
    weights = dict(experts.stacked.named_parameters())
    shares = [
        functional_call(one, {name: w[e] for name, w in weights.items()}, (piece, context))
        for e, piece in enumerate(x.split(SHARES))
    ]
    expected = torch.cat(shares)
    agree(got, expected, f"{what}: experts at once")
    wanted: dict[str, Tensor] = {"tokens": x, **weights}
    pairs = zip(*(torch.autograd.grad(y, [*wanted.values()], slope) for y in (got, expected)), strict=True)
    for name, (a, b) in zip(wanted, pairs, strict=True):
        agree(a, b, f"{what}: gradient of {name} with experts at once")
