"""Whether two specs describe the same computation, by comparing their assembled models."""

import math
from typing import Any

from torch import nn

from registry.contracts import Part
from registry.options import Options, plain
from transformer_kit.model.model import Model
from transformer_kit.transform.linear_layers import SameLinear

IGNORED = {"training", "dropout", "p", "spec", "key", "inplace"}
"""Attributes without effect on inference."""


def signature(model: Model) -> dict[str, Any]:
    """Modules by name, each with its class, its plain attributes and the shapes of its tensors."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, (Model, nn.Dropout, nn.Identity)):
            found[name] = _kind(module)
            found |= {f"{name}.{k}": v for k, v in _attributes(module).items()}
    return found | {name: tuple(t.shape) for name, t in model.state_dict().items()}


def _kind(module: nn.Module) -> str:
    """A part by its name in a spec, a contract itself, which is the identity, as `none`, others by class."""
    if isinstance(module, Part) and module.name:
        return module.name
    kind = nn.Linear if isinstance(module, SameLinear) else type(module)
    return "none" if "family" in vars(kind) else f"{kind.__module__}.{kind.__qualname__}"


def difference(ours: Model, theirs: Model) -> str | None:
    """The first difference of two models; None when they compute the same."""
    return next(iter(differences(ours, theirs).values()), None)


def differences(ours: Model, theirs: Model) -> dict[str, str]:
    """All differences of two models, by place."""
    a, b = signature(ours), signature(theirs)
    names = [name for name in dict.fromkeys((*a, *b)) if not _same(a.get(name), b.get(name))]
    return {name: f"{name} is {a.get(name)!r:.80}, not {b.get(name)!r:.80}" for name in names}


def _attributes(thing: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in vars(thing).items():
        if key.startswith("_") or key in IGNORED:
            continue
        if isinstance(value, (bool, int, float, str, tuple, list, type(None))):
            out[key] = value
        elif isinstance(value, Options):
            out[key] = plain(value)
        elif isinstance(value, Part) and not isinstance(value, nn.Module):
            out[key] = type(value).__qualname__
            out |= {f"{key}.{k}": v for k, v in _attributes(value).items()}
        elif callable(value) and not isinstance(value, nn.Module):
            out[key] = getattr(value, "__qualname__", "")
    return out


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-6)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return bool(a == b)
