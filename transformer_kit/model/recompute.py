"""Layers that keep their input alone and compute the rest again when the gradient needs it (Chen et al. 2016,
arXiv:1604.06174): the memory of one layer's activations instead of all layers', for one more forward pass.

Acts on a built model from outside: its parameters, their names and what it computes stay what they are.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from registry.context import Context
from transformer_kit.model.model import Model

Forward = Callable[[Tensor, Context, Any], Tensor]


def recompute(model: Model, inside: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
    """Make each layer of `model` recompute its activations in the backward pass. Losses and gradients stay the same.

    Both times a layer runs `inside` a context: what torch does in a backward pass, it does outside of contexts that
    were entered around the forward pass.
    """
    for layer in model.layers:
        layer.forward = partial(_forward, layer.forward, inside)


def is_recomputed(layer: nn.Module) -> bool:
    """Whether the layer recomputes its activations."""
    forward = vars(layer).get("forward")
    return isinstance(forward, partial) and forward.func is _forward


def _forward(
    forward: Forward,
    inside: Callable[[], AbstractContextManager[object]],
    x: Tensor,
    context: Context,
    state: Any = None,
) -> Tensor:
    if state is not None or not torch.is_grad_enabled():
        return forward(x, context, state)
    before = dict(context.forward_cache)
    # A compiler lets nothing outside change, and itself finds what layers compute in common.
    first = [] if torch.compiler.is_compiling() else [context.forward_cache]

    def run(x: Tensor) -> tuple[Tensor, ...]:
        # The second time, what layers add to the loss is there already, and what they share has to be computed by the
        # layer that computed it the first time, or autograd would miss what that layer saved for it.
        own = replace(context, losses=[], forward_cache=first.pop() if first else dict(before))
        with inside():
            return forward(x, own, None), *own.losses

    out, *losses = checkpoint(run, x, use_reentrant=False)
    context.losses.extend(losses)
    return out
