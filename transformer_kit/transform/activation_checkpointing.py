"""Activation checkpointing: layers keep their input alone, and compute the rest again in the backward pass (Chen et al.
2016, arXiv:1604.06174). It takes the memory of one layer's activations instead of all layers', for one more forward
pass.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from registry.context import Context
from transformer_kit.model.model import Model

Inside = Callable[[], AbstractContextManager[object]]


def activation_checkpointing(model: Model, inside: Inside = nullcontext) -> Model:
    """Make each layer checkpoint its activations. Losses, gradients and the names of parameters stay the same.

    As `torch.distributed.fsdp.fully_shard` does, it gives each layer a class of its own: `PreNorm` becomes
    `CheckpointedPreNorm`, a subclass of `Checkpointed` and of what it was. Both times a layer runs `inside` a context:
    the second time is in the backward pass, where modes for torch functions are off.
    """
    for layer in model.blocks():
        if not isinstance(layer, Checkpointed):
            own = {"__module__": __name__, "inside": staticmethod(inside)}
            layer.__class__ = type(f"Checkpointed{type(layer).__name__}", (Checkpointed, type(layer)), own)
    return model


class Checkpointed(nn.Module):
    """A layer that checkpoints its activations where a gradient is needed."""

    @staticmethod
    def inside() -> AbstractContextManager[object]:
        """The context that both passes run in."""
        return nullcontext()

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        """As the layer's own."""
        plain = super().forward
        if state is not None or not torch.is_grad_enabled():
            out: Tensor = plain(x, context, state)
            return out
        before = dict(context.forward_cache)
        # A compiler lets nothing outside change, and itself finds what layers compute in common.
        first = [] if torch.compiler.is_compiling() else [context.forward_cache]

        def run(x: Tensor) -> tuple[Tensor, ...]:
            # The second time, what layers add to the loss is there already, and what they share has to be computed by
            # the layer that computed it the first time, or autograd would miss what that layer saved for it.
            own = replace(context, losses=[], forward_cache=first.pop() if first else dict(before))
            with self.inside():
                return plain(x, own, None), *own.losses

        out, *losses = checkpoint(run, x, use_reentrant=False)
        context.losses.extend(losses)
        return out
