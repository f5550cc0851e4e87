"""Records the calls of a model's linear layers and their inputs, for a prompt and one more token."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from registry.texts import TextGrew
from transformer_kit.transform.linear_layers import linear_layers

if TYPE_CHECKING:
    from transformer_kit.model.model import Model


class Call(NamedTuple):
    """A call of a linear layer with its input."""

    layer: nn.Linear
    x: Tensor
    value: Tensor
    """A copy of x at the time of the call."""


@torch.no_grad()
def passes(model: "Model") -> list[list[Call]]:
    """The calls of three passes, in order: a prompt without a cache, a prompt with one, one more token."""
    length = min(2, max(1, model.spec.model.max_seq_len - 1))
    prompt = torch.zeros(1, length, dtype=torch.long, device=model.embedding.weight.device)
    state = model.state(1, length + 1)
    steps: list[Callable[[], object]] = [
        lambda: model(prompt),
        lambda: model(prompt, state=state),
        lambda: model(prompt[:, :1], state=state),
    ]
    found = []
    for step in steps[: 3 if length < model.spec.model.max_seq_len else 1]:
        with suppress(TextGrew):  # positions that depend on the length of the sequence
            found.append(_watched(model, step))
    return found


def called_at_times(found: list[list[Call]]) -> set[nn.Linear]:
    """Layers that only some passes call: their weights are used in other ways too."""
    every = [{call.layer for call in calls} for calls in found]
    return {layer for layers in every for layer in layers if not all(layer in others for others in every)}


def _watched(model: nn.Module, step: Callable[[], object]) -> list[Call]:
    """The calls of linear layers in `step`, recorded by temporary hooks."""
    found: list[Call] = []

    def note(layer: nn.Linear, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(Call(layer, given[0], given[0].clone()))

    with ExitStack() as hooks:
        for _, layer in linear_layers(model):
            if not isinstance(layer, nn.Linear):
                continue
            hooks.callback(layer.register_forward_pre_hook(partial(note, layer)).remove)
        step()
    return found
