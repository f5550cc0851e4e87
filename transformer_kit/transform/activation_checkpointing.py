"""Activation checkpointing: layers keep their input alone and recompute the rest in the backward pass (Chen et al.
2016, arXiv:1604.06174). Memory for activations falls to one layer's, for one more forward pass.
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

    Like `torch.distributed.fsdp.fully_shard`, it gives each layer a new class: `PreNorm` becomes
    `CheckpointedPreNorm`, a subclass of `Checkpointed` and `PreNorm`. Both forward passes of a layer run in the context
    `inside`, because modes for torch functions are off in the backward pass.
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
        """The context of both passes."""
        return nullcontext()

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        """As the layer's own."""
        plain = super().forward
        if state is not None or not torch.is_grad_enabled():
            out: Tensor = plain(x, context, state)
            return out
        before = dict(context.forward_cache)
        # A compiled function has no side effects, and the compiler itself finds common subexpressions.
        first = [] if torch.compiler.is_compiling() else [context.forward_cache]

        def run(x: Tensor) -> tuple[Tensor, ...]:
            # On recomputation, the auxiliary losses of layers are added already. A shared value must be computed by the
            # same layer as the first time, or autograd misses the tensors that this layer saved for it.
            own = replace(context, losses=[], forward_cache=first.pop() if first else dict(before))
            with self.inside():
                return plain(x, own, None), *own.losses

        out, *losses = checkpoint(run, x, use_reentrant=False)
        context.losses.extend(losses)
        return out
