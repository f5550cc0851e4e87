"""Which linear layers a model calls, and with what, found by watching it read a prompt and one token more."""

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
    """A linear layer and the tensor that it was given."""

    layer: nn.Linear
    x: Tensor
    value: Tensor
    """A copy of x as it was then."""


@torch.no_grad()
def passes(model: "Model") -> list[list[Call]]:
    """The calls of each of three passes in their order: a prompt without a cache, one with it, one token after that."""
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
        with suppress(TextGrew):  # positions that change for the whole text with its length
            found.append(_watched(model, step))
    return found


def called_at_times(found: list[list[Call]]) -> set[nn.Linear]:
    """Layers that some passes call and others do not: these use their weights in another way."""
    every = [{call.layer for call in calls} for calls in found]
    return {layer for layers in every for layer in layers if not all(layer in others for others in every)}


def _watched(model: nn.Module, step: Callable[[], object]) -> list[Call]:
    """The calls of linear layers in `step`, by hooks that are removed afterwards."""
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
