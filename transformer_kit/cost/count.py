"""Counts on a built model: its parameters, its distinct layers, what an optimizer and a decode state remember."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from registry.contracts import ModelPart, Objective
from registry.options import Options
from transformer_kit.cost.meter import Work, measure
from transformer_kit.cost.timeline import Stretch, Timeline
from transformer_kit.model.model import Model


class Parameters(NamedTuple):
    """Numbers of parameters; a tensor that stands in several places counts once."""

    total: int
    active: int
    """Those that the forward pass of one token reads: all but what parts say it leaves idle."""
    embedding: int
    """Of the tables of token ids and of positions, and of the head's own."""
    non_embedding: int
    """All others: the N of scaling laws (Kaplan et al. 2020, arXiv:2001.08361)."""
    tied: int
    """Those used in more than one place, such as a table that the head reads too."""
    trainable: int
    """Those that a gradient changes."""


@dataclass
class Kind:
    """Equal layers of a stack."""

    options: Options
    layer: nn.Module
    """One of them."""
    indices: list[int]
    """Where they stand."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.indices)


def parameters(model: Model) -> Parameters:
    """Count the parameters of a model, whatever device it is on."""
    total = _elements(model.parameters())
    outer = _elements({*model.embedding.parameters(), *model.position.parameters(), *model.head.parameters()})
    everywhere = _elements(p for _, p in model.named_parameters(remove_duplicate=False))
    tied = everywhere - total + (model.embedding.weight.numel() if reads_table(model) else 0)
    trainable = _elements(p for p in model.parameters() if p.requires_grad)
    idle = sum(m.idle() for m in model.modules() if isinstance(m, ModelPart))
    return Parameters(total, total - idle, outer, total - outer, tied, trainable)


def kinds(model: Model) -> list[Kind]:
    """The distinct layers, by options, shapes and whether they learn, in the order in which they first stand."""
    found: list[Kind] = []
    for i, (options, layer) in enumerate(zip(model.spec.model.layers.blocks, model.layers, strict=True)):
        same = (k for k in found if k.options == options and _shapes(k.layer) == _shapes(layer))
        kind = next(same, None)
        if kind is None:
            found.append(Kind(options, layer, [i]))
        else:
            kind.indices.append(i)
    return found


def usage(model: Model, stack: list[Kind], work: Work) -> Timeline:
    """One forward and backward pass of a model on the meta device.

    One layer of each kind is measured with everything around it; a kind's further layers each take what the second
    one of a stack of two takes, so tables that layers share are not counted again.
    """
    whole = measure(model, [kind.layer for kind in stack], work)
    depth = sum(kind.count for kind in stack)
    forward, backward = [Stretch()] * depth, [Stretch()] * depth
    for first, kind in enumerate(stack):
        two = measure(model, [kind.layer] * 2, work._replace(objective=_Last(None))) if kind.count > 1 else whole
        for i in kind.indices:
            is_first = i == kind.indices[0]
            forward[i] = whole.forward[first] if is_first else two.forward[1]
            backward[i] = whole.backward[first] if is_first else two.backward[1]
    added = sum(stretch.flops for stretch in forward) - sum(stretch.flops for stretch in whole.forward)
    return whole._replace(forward=tuple(forward), backward=tuple(backward), forward_flops=whole.forward_flops + added)


class _Last(Objective):
    """An objective of next to no work: for what layers take, the loss does not matter."""

    def loss(self, model: Model, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = None if segments is None else segments[:, :-1]
        logits = model(tokens[:, :-1], segments=seen, last=True).logits
        return logits.sum(), logits


def weight_bytes(model: Model) -> int:
    """Bytes of parameters and buffers."""
    return sum(t.nbytes for t in [*model.parameters(), *model.buffers()])


def gradient_bytes(model: Model) -> int:
    """Bytes of the gradients of what learns."""
    return sum(p.nbytes for p in model.parameters() if p.requires_grad)


def optimizer_bytes(model: Model, options: Options) -> int:
    """Bytes that the optimizer of `options` keeps after a step, found by taking one on the meta device."""
    optimizer = options.part(options).make(model)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    try:
        optimizer.step()
    finally:
        model.zero_grad(set_to_none=True)
    return _bytes(list(optimizer.state.values()))


def state_bytes(model: Model, batch: int, length: int) -> int:
    """Bytes of the decode state for `batch` rows of up to `length` tokens."""
    return _bytes(model.state(batch, length).layers)


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size, bool]]:
    return [(name, p.shape, p.requires_grad) for name, p in module.named_parameters()]


def reads_table(model: Model) -> bool:
    """Whether the head's logits depend on the embedding's table."""
    table = model.embedding.weight.detach().requires_grad_()
    x = torch.zeros(1, 1, model.spec.model.d_model, dtype=table.dtype, device=table.device, requires_grad=True)
    logits = model.head(x, table)
    return torch.autograd.grad(logits, table, torch.empty_like(logits), allow_unused=True)[0] is not None


def _bytes(held: Any) -> int:
    """Bytes of the distinct storages of all tensors inside `held`."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in _tensors(held, set())}
    return sum(storages.values())


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner, seen)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner, seen)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value), seen)
