"""The short form of a spec: without defaults, and with parts without options by their bare name."""

from typing import Any

from registry.options import Group, Options, plain
from transformer_kit.spec.layers import fold
from transformer_kit.spec.schema import ModelSpec, Spec


def page(spec: Spec) -> dict[str, Any]:
    """The shortest spec that reads back as an equal spec."""
    short: dict[str, Any] = {"kit": spec.kit}
    if spec.plugins:
        short["plugins"] = list(spec.plugins)
    return {**short, "model": _model(spec.model)}


def brief(value: Any) -> Any:
    """A value as in YAML, without defaults."""
    if isinstance(value, Options) and value.part is not None:
        fields = _fields(value)
        return {"type": value.part.name, **fields} if fields else value.part.name
    if isinstance(value, Group):
        return _fields(value)
    return plain(value)


def _model(model: ModelSpec) -> dict[str, Any]:
    short = {name: value for name, value in _fields(model).items() if name != "layers"}
    blocks = list(model.layers.blocks)
    full = fold([plain(block) for block in blocks])
    common = next(b for b in blocks if plain(b) == full["block"])
    layers = {"count": full["count"], "block": brief(common)}
    if "kinds" in full:
        layers["kinds"] = {name: difference(full["block"], kind) for name, kind in full["kinds"].items()}
        layers["pattern"] = full["pattern"]
    order = [n for n in type(model).model_fields if n in short or n == "layers"]
    return {n: layers if n == "layers" else short[n] for n in order}


def _fields(group: Group) -> dict[str, Any]:
    short = {}
    for name, field in type(group).model_fields.items():
        value = brief(getattr(group, name))
        default = field.get_default(call_default_factory=True) if not field.is_required() else ...
        if value != (brief(default) if isinstance(default, Group) else plain(default)):
            short[name] = value
    return short


def difference(base: Any, other: Any) -> Any:
    """The changes that, merged onto `base`, give `other`; both are full specs."""
    if not (isinstance(base, dict) and isinstance(other, dict)) or base.get("type") != other.get("type"):
        return _bare(other)
    return {k: difference(base[k], v) for k, v in other.items() if base.get(k, ...) != v}


def _bare(value: Any) -> Any:
    """The bare name of a part whose only key is its type."""
    return value["type"] if isinstance(value, dict) and set(value) == {"type"} else value
