"""Counts on a built model: parameters, distinct layers, optimizer state and decode state.

A model from `assemble_distinct` holds equal layers once. `places` then lists the layers that each of them stands for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from registry.contracts import ModelPart, Objective
from registry.options import Options
from registry.part import idle_inside
from registry.state import LayerState
from transformer_kit.cost.meter import Work, measure
from transformer_kit.cost.timeline import Stretch, Timeline
from transformer_kit.model.model import Model

Places = Sequence[Sequence[int]]
"""For each of a model's layers, the indices of the layers that it stands for."""


class Parameters(NamedTuple):
    """Numbers of parameters; a shared tensor counts once."""

    total: int
    active: int
    """Parameters that the forward pass of one token uses, without idle ones such as inactive experts."""
    embedding: int
    """Parameters of the token and position embeddings, and of an untied head."""
    non_embedding: int
    """All other parameters: the N of scaling laws (Kaplan et al. 2020, arXiv:2001.08361)."""
    tied: int
    """Parameters used in more than one place, such as a tied embedding."""
    trainable: int
    """Parameters that require gradients."""


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
        """Number of layers."""
        return len(self.indices)


def parameters(model: Model, places: Places | None = None) -> Parameters:
    """Count the parameters of a model on any device."""
    pieces = _pieces(model, places)
    times = {p: n for piece, n in pieces for p in piece.parameters()}
    total = sum(n * p.numel() for p, n in times.items())
    outer = _elements({*model.embedding.parameters(), *model.position.parameters(), *model.head.parameters()})
    everywhere = sum(n * _elements(p for _, p in m.named_parameters(remove_duplicate=False)) for m, n in pieces)
    tied = everywhere - total + (model.embedding.weight.numel() if reads_table(model) else 0)
    trainable = sum(n * p.numel() for p, n in times.items() if p.requires_grad)
    idle = sum(n * (piece.idle() if isinstance(piece, ModelPart) else idle_inside(piece)) for piece, n in pieces)
    return Parameters(total, total - idle, outer, total - outer, tied, trainable)


def kinds(model: Model, places: Places | None = None) -> list[Kind]:
    """The distinct layers, by options, shapes and `requires_grad`, in the order of their first index."""
    found: list[Kind] = []
    for layer, indices in zip(model.blocks(), _places(model, places), strict=True):
        options = model.spec.model.layers.blocks[indices[0]]
        same = (k for k in found if k.options == options and _shapes(k.layer) == _shapes(layer))
        kind = next(same, None)
        if kind is None:
            found.append(Kind(options, layer, [*indices]))
        else:
            kind.indices.extend(indices)
    return found


def usage(model: Model, stack: list[Kind], work: Work) -> Timeline:
    """One forward and backward pass of a model on the meta device.

    One layer of each kind is measured inside the whole model. Each further layer of a kind costs as much as the second
    layer of a stack of two, so tables that layers share are not counted again.
    """
    whole = measure(model, [kind.layer for kind in stack], work)
    depth = sum(kind.count for kind in stack)
    forward, backward = [Stretch()] * depth, [Stretch()] * depth
    for first, kind in enumerate(stack):
        two = measure(model, [kind.layer] * 2, work._replace(objective=_Last(None))) if kind.count > 1 else whole
        further = two.backward[-1]
        # A layer that stands twice completes and drops its gradients in its first place alone.
        if work.optimizer_in_backward or work.accumulates:
            further = further._replace(net=further.net - gradient_bytes(kind.layer))
        for i in kind.indices:
            is_first = i == kind.indices[0]
            forward[i] = whole.forward[first] if is_first else two.forward[1]
            backward[i] = whole.backward[first] if is_first else further
    added = sum(stretch.flops for stretch in forward) - sum(stretch.flops for stretch in whole.forward)
    return whole._replace(forward=tuple(forward), backward=tuple(backward), forward_flops=whole.forward_flops + added)


class _Last(Objective):
    """An objective of almost no cost: the loss does not change what layers take."""

    def loss(self, model: Model, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = None if segments is None else segments[:, :-1]
        logits = model(tokens[:, :-1], segments=seen, last=True).logits
        return logits.sum(), logits


def weight_bytes(model: Model, places: Places | None = None) -> int:
    """Bytes of parameters and buffers."""
    times = {t: n for piece, n in _pieces(model, places) for t in (*piece.parameters(), *piece.buffers())}
    return sum(n * t.nbytes for t, n in times.items())


def gradient_bytes(model: nn.Module, places: Places | None = None) -> int:
    """Bytes of the gradients of all trainable parameters in a model or a part."""
    pieces = _pieces(model, places) if isinstance(model, Model) else [(model, 1)]
    times = {p: n for piece, n in pieces for p in piece.parameters()}
    return sum(n * p.nbytes for p, n in times.items() if p.requires_grad)


def optimizer_bytes(model: Model, options: Options, places: Places | None = None) -> int:
    """Bytes that the optimizer of `options` keeps after a step, measured by one step on the meta device."""
    optimizer = options.part(options).make(model)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    try:
        optimizer.step()
    finally:
        model.zero_grad(set_to_none=True)
    kept = optimizer.state
    return sum(n * _bytes([kept[p] for p in m.parameters() if p in kept]) for m, n in _pieces(model, places))


def state_bytes(model: Model, batch: int, length: int, places: Places | None = None) -> int:
    """Bytes of the decode state for `batch` sequences of up to `length` tokens."""
    return batch * sum(n * layer.bytes_per_sequence for layer, n in _states(model, length, places))


def state_bytes_per_token(model: Model, places: Places | None = None) -> int:
    """Bytes that one more token of one sequence adds to the decode state."""
    return sum(n * layer.bytes_per_token for layer, n in _states(model, 1, places))


def _states(model: Model, length: int, places: Places | None) -> Iterator[tuple[LayerState, int]]:
    """The decode state of each layer for one sequence, and how often the layer stands in the model."""
    for layer, indices in zip(model.state(1, length).layers, _places(model, places), strict=True):
        if layer is not None:
            yield layer, len(indices)


def _places(model: Model, places: Places | None) -> Places:
    """`places`, or the identity mapping when not given."""
    found = [[i] for i in range(len(model.blocks()))] if places is None else places
    assert sum(map(len, found)) == len(model.spec.model.layers.blocks), "equal layers stand once; give `places`"
    return found


def _pieces(model: Model, places: Places | None) -> list[tuple[nn.Module, int]]:
    """Modules that make up the model, and how often each stands in it."""
    stacked = [stack.layers for stack in model.stacks]
    outer = [(child, 1) for child in model.children() if child not in stacked]
    layers = zip(model.blocks(), _places(model, places), strict=True)
    return [(model, 1)] if places is None else [*outer, *((layer, len(indices)) for layer, indices in layers)]


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size, bool]]:
    return [(name, p.shape, p.requires_grad) for name, p in module.named_parameters()]


def reads_table(model: Model) -> bool:
    """Whether the head's logits depend on the embedding's weight."""
    table = model.embedding.weight.detach().requires_grad_()
    x = torch.zeros(1, 1, model.spec.model.d_model, dtype=table.dtype, device=table.device, requires_grad=True)
    logits = model.head(x, table)
    return torch.autograd.grad(logits, table, torch.empty_like(logits), allow_unused=True)[0] is not None


def _bytes(held: Any) -> int:
    """Bytes of the distinct storages of all tensors inside `held`."""
    storages = {id(storage): storage for storage in (t.untyped_storage() for t in _tensors(held, set()))}
    return sum(storage.nbytes() for storage in storages.values())


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
