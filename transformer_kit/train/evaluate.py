"""The loss on held-out data."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from registry.contracts import Objective
from transformer_kit import seeds
from transformer_kit.train.errors import TrainError
from transformer_kit.train.precision import Placement
from transformer_kit.train.step import Stream


def evaluate(
    model: nn.Module, objective: Objective, stream: Stream, batches: int, placement: Placement, seed: int
) -> float:
    """Mean loss in nats over the valid targets of the first `batches` of `stream`. Does not change the run's state.

    An objective that draws random numbers draws the same ones for a batch in each evaluation.
    """
    total = torch.zeros((), device=placement.device, dtype=torch.float64 if placement.device.type != "mps" else None)
    count = torch.zeros_like(total)
    with aside(model, seed, "evaluation"), placement.autocast():
        for index in range(batches):
            seeds.reseed(seed, "evaluation", index)
            tokens, segments = stream.batch(index)
            segments = None if segments is None else placement.move(segments)
            loss, valid = objective.loss(model, placement.move(tokens), segments)
            total += loss
            count += valid
    if not count:
        raise TrainError("no token of the validation share has a successor in its document, so it has no loss")
    return (total / count).item()


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Convert nats per token to bits per byte of text, which is comparable between tokenizers."""
    return loss / math.log(2) / bytes_per_token


@contextmanager
def aside(model: nn.Module, seed: int, purpose: str) -> Iterator[None]:
    """Inside, the model is in evaluation mode without gradients, and random numbers depend on `purpose`."""
    was = model.training
    with seeds.scope(seed, purpose), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            model.train(was)
