"""Prepares a model for inference: fuses projections, and packs or quantizes weights for the hardware.

model = prepare_for_inference(load(folder))
model.generate(prompts, max_new_tokens=100)
"""

from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from transformer_kit.model.model import Model, Output
from transformer_kit.transform.fused_projections import fused_projections
from transformer_kit.transform.int8 import int8 as quantized
from transformer_kit.transform.packed_linear import packed_linear
from transformer_kit.transform.pipeline import transformed
from transformer_kit.transform.untied_head import untied_head

_PREPARED = "the model was prepared for inference, so it cannot {what}; build or load it again for that"


class InferenceModel(Model):
    """A model prepared for inference: same results, but it cannot train, move or change."""

    prepared = True

    def forward(self, *given: Any, **named: Any) -> Output:
        """As `Model.forward`. A backward pass through the result raises RuntimeError."""
        logits, loss = super().forward(*given, **named)
        if not torch.is_grad_enabled():
            return Output(logits, loss)
        return Output(_final(logits), None if loss is None else _final(loss))

    def train(self, mode: bool = True) -> Self:
        """Refuse training mode with RuntimeError; `eval()` changes nothing."""
        return super().train(mode) if not mode else _refuse("be trained")

    def load_state_dict(self, *given: Any, **named: Any) -> Any:
        """Refuse other weights with RuntimeError, since packed copies would not follow."""
        return _refuse("take other weights")

    def _apply(self, *given: Any, **named: Any) -> Any:
        """Refuse `to`, `half`, `cuda` and others with RuntimeError; they all call this."""
        return _refuse("change its device or type")


@torch.no_grad()
def prepare_for_inference(model: Model, *, batch: int = 1, int8: bool = False) -> Model:
    """Change `model` in place for fast generation; it then cannot train, move or take other weights.

    batch  number of sequences to generate at a time; other numbers give the same result, more slowly
    int8   on a CPU, quantize weights to int8

    Linear layers with the same input are fused. On a CPU each weight gets a packed copy of its own size, or, with
    `int8`, is replaced by a quarter of its float32 size. Later changes of weights do not reach these copies. One thread
    at a time may use the model. Raises ValueError for invalid arguments.
    """
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch must be a whole number, at least 1, got {batch!r}")
    if isinstance(model, InferenceModel):
        raise ValueError("the model is prepared for inference already; build or load it again to prepare it otherwise")
    if model.embedding.weight.is_meta:
        raise ValueError("a model on the meta device has no weights to prepare; load or materialize it first")
    model.eval().requires_grad_(False)
    transformed(
        model,
        untied_head=untied_head,
        fused_projections=fused_projections,
        packed_linear=None if int8 else partial(packed_linear, rows=batch),
        int8=partial(quantized, rows=batch) if int8 else None,
    )
    model.__class__ = InferenceModel
    return model


class _NoGradient(torch.autograd.Function):
    """x, with a backward pass that raises an explanation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, learns: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return _refuse("be trained")


def _final(x: Tensor) -> Tensor:
    """x through `_NoGradient`."""
    made: Tensor = _NoGradient.apply(x, torch.zeros((), requires_grad=True))
    return made


def _refuse(what: str) -> Any:
    raise RuntimeError(_PREPARED.format(what=what))
