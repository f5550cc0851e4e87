"""Frozen parameters: the forward pass uses them, and training does not change them."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def freeze(model: M, patterns: Iterable[str]) -> M:
    """Set `requires_grad` to False for parameters whose names match a pattern (`layers.0.*`).

    Raises ValueError if a pattern matches no parameter, or if all parameters are frozen.
    """
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        fitting = [p for name, p in parameters.items() if fnmatchcase(name, pattern)]
        if not fitting:
            few = ", ".join(list(parameters)[:4])
            raise ValueError(f"no parameter is named like '{pattern}'; names are {few}, ...")
        for parameter in fitting:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in parameters.values()):
        raise ValueError("every parameter is frozen, so nothing would learn")
    return model
