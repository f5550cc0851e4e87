"""One optimizer step: the arithmetic of training, without synchronization with the device."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from registry.contracts import ModelPart, Objective
from transformer_kit.train.precision import Placement
from transformer_kit.transform.optimizer_in_backward import OptimizerInBackward


class Batch(NamedTuple):
    """Tokens (B, T+1), and with a document mask their segments."""

    tokens: Tensor
    segments: Tensor | None


class Stream(Protocol):
    """Numbered batches: a number gives the same batch in every run and after every crash."""

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, T+1) and segments (B, T+1) or None."""


class Outcome(NamedTuple):
    """Scalars of one step, still on the device."""

    loss: Tensor
    """Mean over the valid targets of the whole step, in nats."""
    grad_norm: Tensor
    """Norm of the gradient of that mean, before clipping."""
    measured: dict[str, Tensor]
    """Metrics of the model's parts, such as the load of experts."""


class Step:
    """w <- optimizer(w, clip(grad sum(losses) / count)); sums run over the targets of all micro-batches."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        placement: Placement,
        max_grad_norm: float | None,
        in_backward: OptimizerInBackward | None = None,
    ) -> None:
        """`model` is the argument of the objective; `in_backward` is the transform that was applied to it, if any."""
        assert in_backward is None or max_grad_norm is None
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.placement = placement
        self.max_grad_norm = max_grad_norm
        self.in_backward = in_backward
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # a resumed optimizer has it: its lr is the last step's
        self._telling = [(n, m) for n, m in model.named_modules() if isinstance(m, ModelPart) and _tells(m)]
        self._peaks = [group["initial_lr"] for group in optimizer.param_groups]

    def lr(self, scale: float) -> float:
        """The learning rate at a schedule's `scale`; the highest one of the parameter groups."""
        return max(self._peaks) * scale

    def __call__(self, batches: Iterable[Batch], scale: float) -> Outcome:
        """One optimizer step on the micro-batches, at `scale` times the peak learning rate."""
        self.optimizer.zero_grad(set_to_none=True)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * scale
        if self.in_backward is None:
            total, count, norm = self._after_backward(batches)
        else:
            total, count, norm = self._in_backward(batches, self.in_backward)
        measured = {f"{n}.{what}": value for n, part in self._telling for what, value in part.after_step().items()}
        return Outcome(total / count, norm, measured)

    def _after_backward(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor, Tensor]:
        """Step with the gradients of all micro-batches; return sum of losses, number of targets, gradient norm."""
        total = torch.zeros((), device=self.placement.device)
        count = torch.zeros((), device=self.placement.device)
        for batch in batches:
            loss, valid = self._loss(batch)
            loss.backward()
            total += loss.detach()
            count += valid
        count = count.clamp(min=1)
        norm = self._scale_gradients(count)
        self.optimizer.step()
        return total, count, norm

    def _in_backward(self, batches: Iterable[Batch], transform: OptimizerInBackward) -> tuple[Tensor, Tensor, Tensor]:
        """Like `_after_backward`, with one batch, whose backward pass runs the optimizer."""
        (batch,) = batches
        loss, valid = self._loss(batch)
        count = valid.clamp(min=1)
        (loss / count).backward()
        return loss.detach(), count, transform.norm()

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of the losses of a micro-batch, and the number of valid targets."""
        tokens, segments = batch
        segments = None if segments is None else self.placement.move(segments)
        with self.placement.autocast(once=True):
            return self.objective.loss(self.model, self.placement.move(tokens), segments)

    def _scale_gradients(self, count: Tensor) -> Tensor:
        """Divide the gradients by `count` and clip them, in one pass; return the norm before clipping."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm(gradients) / count
        factor = 1 / count
        if self.max_grad_norm is not None:
            factor = factor * (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)
        return norm


def _tells(part: ModelPart) -> bool:
    """Whether a part has an `after_step` of its own."""
    return type(part).after_step is not ModelPart.after_step
