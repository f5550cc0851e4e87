"""Operations on the layout of weights, from checkpoint tensors (theirs) to kit tensors (ours), each with an inverse.

transpose              swap the last two dimensions
{split: n}             one of theirs is several of ours: its rows are n groups, and each group holds rows of every one
                       of ours in turn. n = 1 is plain concatenation, n = heads is [q k v] head by head, n = kv heads
                       is [q..q k v], n = each is row by row. `n` may be a key of the config
{concat: n}            n of theirs with equally many rows are concatenated along the rows of one of ours
stack                  several of theirs are the rows of one of ours
row                    theirs is a matrix with one row, ours is that row
{halves: n}            the rows of theirs are n heads with interleaved rotary pairs; ours pairs a channel of the
                       head's first half with one of its second half
{fold: n}              the rows of theirs are those of n experts, concatenated
unstack                theirs stacks all experts, as ours does; the following operations apply to one expert

Operations move bits and never change them, so export restores the imported file exactly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transformer_kit.convert.arguments import checked

Op = str | dict[str, Any]
Change = Callable[[list[Tensor], int, Sequence[int]], list[Tensor]]
"""A function of the tensors, the operation's argument, and the numbers of rows of our tensors."""


@dataclass(frozen=True)
class Operation:
    """An import function and its inverse."""

    inward: Change
    outward: Change
    counted: bool = False
    """Whether the operation takes an argument."""


def inward(tensors: list[Tensor], ops: Sequence[Op], rows: Sequence[int], config: Mapping[str, Any]) -> list[Tensor]:
    """Our tensors from theirs. `rows` are the first dimensions of ours. Raises ValueError when they do not fit."""
    for op in ops:
        name, number = _read(op, rows, config)
        tensors = OPERATIONS[name].inward(tensors, number, rows)
    return tensors


def outward(tensors: list[Tensor], ops: Sequence[Op], rows: Sequence[int], config: Mapping[str, Any]) -> list[Tensor]:
    """Their tensors from ours: the inverse of `inward`."""
    for op in reversed(ops):
        name, number = _read(op, rows, config)
        tensors = OPERATIONS[name].outward(tensors, number, rows)
    return tensors


def _split(tensors: list[Tensor], groups: int, rows: Sequence[int]) -> list[Tensor]:
    (tensor,) = tensors
    if tensor.shape[0] != sum(rows) or any(r % groups for r in rows):
        raise ValueError(f"{tensor.shape[0]} rows are not {groups} groups that make up {list(rows)} rows")
    parts = tensor.unflatten(0, (groups, -1)).split([r // groups for r in rows], dim=1)
    return [p.flatten(0, 1) for p in parts]


def _unsplit(tensors: list[Tensor], groups: int, rows: Sequence[int]) -> list[Tensor]:
    return [torch.cat([t.unflatten(0, (groups, -1)) for t in tensors], dim=1).flatten(0, 1)]


def _concat(tensors: list[Tensor], count: int, rows: Sequence[int]) -> list[Tensor]:
    if len(tensors) != count or len({t.shape for t in tensors}) > 1:
        raise ValueError(f"must be {count} tensors of one shape, got {[tuple(t.shape) for t in tensors]}")
    return [torch.cat(tensors)]


def _halves(tensor: Tensor, heads: int) -> Tensor:
    if tensor.shape[0] % (2 * heads):
        raise ValueError(f"{tensor.shape[0]} rows are not {heads} heads of pairs")
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _neighbors(tensor: Tensor, heads: int) -> Tensor:
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


OPERATIONS = {
    "transpose": Operation(lambda ts, n, rows: [t.mT for t in ts], lambda ts, n, rows: [t.mT for t in ts]),
    "split": Operation(_split, _unsplit, counted=True),
    "concat": Operation(_concat, lambda ts, n, rows: list(ts[0].chunk(n)), counted=True),
    "stack": Operation(lambda ts, n, rows: [torch.stack(ts)], lambda ts, n, rows: list(ts[0].unbind(0))),
    "row": Operation(lambda ts, n, rows: [t.squeeze(0) for t in ts], lambda ts, n, rows: [t[None] for t in ts]),
    "halves": Operation(
        lambda ts, n, rows: [_halves(t, n) for t in ts],
        lambda ts, n, rows: [_neighbors(t, n) for t in ts],
        counted=True,
    ),
}
ACROSS = {"fold": True, "unstack": False}
"""Operations on tensors with all experts, read one expert at a time, and whether they take an argument."""


def _read(op: Op, rows: Sequence[int], config: Mapping[str, Any]) -> tuple[str, int]:
    """An operation's name and its argument."""
    if isinstance(op, str):
        return op, 0
    ((name, argument),) = op.items()
    if argument == "each":
        return name, rows[0]
    if isinstance(argument, str):
        key = argument.removeprefix("$")
        return name, checked("count", config.get(key), f"operation '{name}' needs the key {key}")
    return name, int(argument)


def unfold(tensor: Tensor, count: int, index: int) -> Tensor:
    """One of `count` tensors that are concatenated along the rows."""
    return tensor.unflatten(0, (count, -1))[index]
