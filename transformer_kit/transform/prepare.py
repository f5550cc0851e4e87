"""A model made ready to generate: its projections fused, its weights packed or quantized as the hardware wants.

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
    """A model that was prepared for inference: it computes what it did, and does not learn, move or change."""

    prepared = True

    def forward(self, *given: Any, **named: Any) -> Output:
        """As `Model.forward`. A backward pass through the result raises RuntimeError."""
        logits, loss = super().forward(*given, **named)
        if not torch.is_grad_enabled():
            return Output(logits, loss)
        return Output(_final(logits), None if loss is None else _final(loss))

    def train(self, mode: bool = True) -> Self:
        """Refuse to train with RuntimeError; `eval()` is what it is in already."""
        return super().train(mode) if not mode else _refuse("be trained")

    def load_state_dict(self, *given: Any, **named: Any) -> Any:
        """Refuse other weights with RuntimeError: copies of them would stay what they are."""
        return _refuse("take other weights")

    def _apply(self, *given: Any, **named: Any) -> Any:
        """What `to`, `half`, `cuda` and others call: refused with RuntimeError."""
        return _refuse("change its device or type")


@torch.no_grad()
def prepare_for_inference(model: Model, *, batch: int = 1, int8: bool = False) -> Model:
    """`model` itself, changed so that it generates fast; from then on it does not train, move or take other weights.

    batch  sequences that are generated at a time: others are as right, and slower
    int8   on a CPU, weights are quantized to 8 bits

    Linear layers that read the same tensor are fused. On a CPU weights get a packed copy, which takes as much memory as
    the weights, or, with `int8`, take a quarter of what they took in float32. What is written to weights afterwards is
    not seen. One thread at a time may use the model. Raises ValueError where that cannot be.
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
    """x, with a backward pass that says why there is none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, learns: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return _refuse("be trained")


def _final(x: Tensor) -> Tensor:
    """x, whose backward pass is asked of _NoGradient."""
    made: Tensor = _NoGradient.apply(x, torch.zeros((), requires_grad=True))
    return made


def _refuse(what: str) -> Any:
    raise RuntimeError(_PREPARED.format(what=what))
