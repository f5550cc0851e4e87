"""Tensors that files store several times and the model once: a tied head, or a head under an old and a new name."""

from collections.abc import Mapping

import torch

from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.weights import Weights
from transformer_kit.model.model import Model

HEAD, TABLE = "head.out.weight", "embedding.table.weight"
"""Kit names of the two tensors that a tied model stores once."""


def twice(declaration: Declaration) -> set[str]:
    """Checkpoint names that may coexist for the same tensor."""
    return {name for names in _alike(declaration, tied=True) for name in names}


def apart(weights: Weights, declaration: Declaration, model: Model) -> list[str]:
    """Messages about tensors that are one in the model and differ in the files."""
    tied = HEAD not in model.state_dict()
    problems = []
    for names in _alike(declaration, tied):
        first, *others = [name for name in names if name in weights] or [""]
        problems += [_said(first, other, declaration, tied) for other in others if not _equal(weights, first, other)]
    return problems


def _alike(declaration: Declaration, tied: bool) -> list[list[str]]:
    """Groups of checkpoint names for one kit tensor."""
    groups: dict[str, list[str]] = {}
    for theirs, ours in declaration.tensors.items():
        if isinstance(ours, str):
            groups.setdefault(TABLE if tied and ours == HEAD else ours, []).append(theirs)
    return [sorted(names, key=lambda n: declaration.tensors[n] != TABLE) for names in groups.values() if len(names) > 1]


def _equal(weights: Weights, one: str, other: str) -> bool:
    """Whether two tensors have equal values, possibly in different dtypes."""
    if not weights.usable([one, other]):
        return False
    kind = torch.promote_types(weights.dtype(one), weights.dtype(other))
    return torch.equal(weights.get(one).to(kind), weights.get(other).to(kind))


def _said(one: str, other: str, declaration: Declaration, tied: bool) -> str:
    ours: Mapping[str, object] = declaration.tensors
    if tied and ours[one] == TABLE and ours[other] == HEAD:
        return f"the config ties {other} to the embedding table {one}, and the two differ"
    return f"{one} and {other} are two names of one tensor, and the two differ"
