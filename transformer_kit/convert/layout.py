"""Operations on the layout of weights: a closed set, each with its inverse, between their tensors and ours.

transpose              the last two dimensions change places
{split: n}             one of theirs is several of ours: its rows are n groups, each holding rows of every one of
                       ours in turn. n = 1 is plain concatenation, n = heads is [q k v] head by head, n = kv heads
                       is [q..q k v], n = each is row by row. `n` may be a key of the config
stack                  several of theirs are the rows of one of ours
row                    theirs is a matrix of one row, which is ours
{fold: n}              the rows of theirs are n tensors, one below another
unstack                theirs holds one tensor for each of ours with another {e}
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Op = str | dict[str, Any]


def inward(tensors: list[Tensor], ops: Sequence[Op], rows: Sequence[int], config: Mapping[str, Any]) -> list[Tensor]:
    """Ours from theirs; `rows` are the sizes of ours' first dimension. Raises ValueError when they do not fit."""
    for op in ops:
        name, argument = _read(op, rows, config)
        if name == "transpose":
            tensors = [t.mT for t in tensors]
        elif name == "split":
            tensors = _split(tensors[0], argument, rows)
        elif name == "stack":
            tensors = [torch.stack(tensors)]
        elif name == "row":
            tensors = [t.squeeze(0) for t in tensors]
        else:
            raise ValueError(f"no operation '{name}' here")
    return tensors


def outward(tensors: list[Tensor], ops: Sequence[Op], rows: Sequence[int], config: Mapping[str, Any]) -> list[Tensor]:
    """Theirs from ours: `inward`, undone."""
    for op in reversed(ops):
        name, argument = _read(op, rows, config)
        if name == "transpose":
            tensors = [t.mT for t in tensors]
        elif name == "split":
            tensors = [torch.cat([t.unflatten(0, (argument, -1)) for t in tensors], dim=1).flatten(0, 1)]
        elif name == "stack":
            tensors = list(tensors[0].unbind(0))
        elif name == "row":
            tensors = [t.unsqueeze(0) for t in tensors]
        else:
            raise ValueError(f"no operation '{name}' here")
    return tensors


def _split(tensor: Tensor, groups: int, rows: Sequence[int]) -> list[Tensor]:
    if tensor.shape[0] != sum(rows) or any(r % groups for r in rows):
        raise ValueError(f"{tensor.shape[0]} rows are not {groups} groups that make up {list(rows)} rows")
    parts = tensor.unflatten(0, (groups, -1)).split([r // groups for r in rows], dim=1)
    return [p.flatten(0, 1) for p in parts]


def _read(op: Op, rows: Sequence[int], config: Mapping[str, Any]) -> tuple[str, int]:
    """An operation's name and its number."""
    if isinstance(op, str):
        return op, 0
    ((name, argument),) = op.items()
    if argument == "each":
        return name, rows[0]
    if isinstance(argument, str):
        value = config.get(argument.removeprefix("$"))
        if not isinstance(value, int):
            raise ValueError(f"operation '{name}' needs the key {argument.removeprefix('$')}, got {value!r}")
        return name, value
    return name, int(argument)


def unfold(tensor: Tensor, count: int, index: int) -> Tensor:
    """One of `count` tensors that lie below one another."""
    return tensor.unflatten(0, (count, -1))[index]
