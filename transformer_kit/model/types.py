"""Which tensors of a model must have one type: all but those of parts that compute in float32 whatever theirs is."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from registry.contracts import Norm, Router


def together(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that meet in products, by name: not those of norms and routers."""
    inside = (name for name, part in model.named_modules() if isinstance(part, (Norm, Router)))
    apart = tuple(f"{name}." for name in inside)
    return {name: p for name, p in model.named_parameters() if not name.startswith(apart)}


def widest(kinds: Iterable[torch.dtype]) -> torch.dtype:
    """The type that holds all values of these."""
    first, *others = sorted(set(kinds), key=str)
    for other in others:
        first = torch.promote_types(first, other)
    return first


def agree(model: nn.Module) -> str | None:
    """Give the parameters that meet in products one type, the widest of theirs; what was done, if anything was."""
    found = together(model)
    kinds = {p.dtype for p in found.values()}
    if len(kinds) < 2:
        return None
    kind = widest(kinds)
    for parameter in found.values():
        parameter.data = parameter.data.to(kind)
    return f"weights of {words(kinds)} are read as {words([kind])}, the widest of these"


def words(kinds: Iterable[torch.dtype]) -> str:
    """Types as people write them."""
    return ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
