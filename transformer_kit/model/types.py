"""Common dtype of a model's parameters, except in parts that always compute in float32."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from registry.contracts import Norm, Router


def together(model: nn.Module) -> dict[str, Tensor]:
    """Parameters of matrix products, by name; parameters of norms and routers are excluded."""
    inside = (name for name, part in model.named_modules() if isinstance(part, (Norm, Router)))
    apart = tuple(f"{name}." for name in inside)
    return {name: p for name, p in model.named_parameters() if not name.startswith(apart)}


def widest(kinds: Iterable[torch.dtype]) -> torch.dtype:
    """The dtype that holds all values of these dtypes."""
    first, *others = sorted(set(kinds), key=str)
    for other in others:
        first = torch.promote_types(first, other)
    return first


def agree(model: nn.Module) -> str | None:
    """Cast parameters of matrix products to the widest of their dtypes; return a note if any was cast."""
    found = together(model)
    kinds = {p.dtype for p in found.values()}
    if len(kinds) < 2:
        return None
    kind = widest(kinds)
    for parameter in found.values():
        parameter.data = parameter.data.to(kind)
    return f"weights of {words(kinds)} are read as {words([kind])}, the widest of these"


def words(kinds: Iterable[torch.dtype]) -> str:
    """Names of dtypes."""
    return ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
