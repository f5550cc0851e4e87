"""One part in words: options with types and defaults, papers, capabilities, and an example that a page may copy."""

import inspect
import re
import typing
from typing import Any, ClassVar

import yaml

from registry import core
from registry.contracts import Part
from registry.options import Group, slot_family
from transformer_kit.spec.schema import RunSpec

_ARXIV = re.compile(r"arXiv:([0-9]{4}\.[0-9]{4,5})")
_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
_UNLIMITED = 1e6
"""Bounds beyond this only keep absurd specs out; they are not worth a word."""


def describe(family: str, name: str) -> dict[str, Any]:
    """Everything worth knowing about a part. Raises RegistryError when there is none."""
    part = core.get(family, name)
    module = inspect.getmodule(part)
    text = " ".join(line for line in (inspect.getdoc(module) or "").split("\n\n", 1)[0].splitlines())
    return {
        "family": family,
        "name": name,
        "documentation": "\n".join(filter(None, [text, inspect.getdoc(part)])),
        "papers": [f"https://arxiv.org/abs/{id}" for id in dict.fromkeys(_ARXIV.findall(text))],
        "capabilities": _capabilities(part),
        "source": f"{inspect.getsourcefile(part)}:{inspect.getsourcelines(part)[1]}",
        "options": _options(part.Options.model_json_schema()),
        "places": places(family),
        "example": _example(family, name),
    }


def _capabilities(part: type[Part]) -> dict[str, Any]:
    """What the part declares of the things that its contract asks."""
    contract = next(c for c in part.__mro__ if "family" in c.__dict__)
    declared = {key: kind for cls in reversed(contract.__mro__) for key, kind in _class_variables(cls).items()}
    asked = [key for key in declared if key not in ("family", "name")]
    values = {key: getattr(part, key) for key in asked}
    return {k: sorted(v) if isinstance(v, (frozenset, tuple)) else v for k, v in values.items() if v not in ((), "")}


def _class_variables(cls: type) -> dict[str, Any]:
    """What a contract declares for a class as a whole, nothing for classes from elsewhere."""
    origins: dict[str, Any] = {key: typing.get_origin(kind) for key, kind in inspect.get_annotations(cls).items()}
    return {k: o for k, o in origins.items() if o is ClassVar} if issubclass(cls, Part) else {}


def _options(schema: dict[str, Any], prefix: str = "", groups: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """One entry for each option; those of a group follow it, with dotted names."""
    groups = schema.get("$defs", {}) if groups is None else groups
    found = []
    for name, option in schema.get("properties", {}).items():
        group = option.get("$ref", "").rpartition("/")[2]
        if group:
            found += _options(groups[group], f"{prefix}{name}.", groups)
            continue
        entry = {"name": prefix + name, "type": _type(option, groups), "required": "default" not in option}
        found.append(entry | {"default": option.get("default"), "documentation": option.get("description", "")})
    return found


def _type(option: dict[str, Any], groups: dict[str, Any]) -> str:
    if "family" in option:
        return f"a part of {option['family']}"
    if "anyOf" in option:
        return " or ".join(_type(choice, groups) for choice in option["anyOf"])
    if "enum" in option:
        return " | ".join(map(str, option["enum"]))
    if "const" in option:
        return str(option["const"])
    if option.get("type") == "array":
        return f"list of {_type(option.get('items', {}), groups)}"
    word = _WORDS.get(str(option.get("type")), str(option.get("type", "mapping")))
    limits = [f"{text} {option[key]:g}" for key, text in _LIMITS.items() if option.get(key, _UNLIMITED) < _UNLIMITED]
    return f"{word} {' and '.join(limits)}".strip()


def places(family: str, inside: tuple[str, ...] = ()) -> list[str]:
    """Paths, from the top of a page, where a part of this family may be named; not into parts of families `inside`."""
    found = _slots(RunSpec, "", family)
    for holder in core.families():
        if holder not in (family, *inside):
            keys = {key for name in core.names(holder) for key in _held(holder, name, family)}
            found += [f"{above}.{key}" for key in sorted(keys) for above in places(holder, (family, *inside))]
    return list(dict.fromkeys(found))


def _held(holder: str, name: str, family: str) -> list[str]:
    """Options of a part that hold a part of `family`."""
    try:
        options = core.get(holder, name).Options
    except core.RegistryError:
        return []
    return [key for key, field in options.model_fields.items() if slot_family(field) == family]


def _slots(group: type[Group], prefix: str, family: str) -> list[str]:
    found = []
    for name, field in group.model_fields.items():
        path = f"{prefix}{name}".replace("layers.blocks", "layers.block")
        if slot_family(field) == family:
            found.append(path)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            found += _slots(field.annotation, f"{path}.", family)
    return found


def _example(family: str, name: str) -> str:
    """The part as a page writes it, at the first place where one may stand."""
    written = written_out(family, name)
    short: Any = name if list(written) == ["type"] else written
    keys = next(iter(places(family)), family).split(".")
    lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate(keys)]
    listed = f"[{inline(short)}]" if keys[-1].endswith("s") and family != keys[-1] else inline(short)
    return "\n".join([*lines[:-1], f"{lines[-1]} {listed}"])


def written_out(family: str, name: str) -> dict[str, Any]:
    """A mapping that describes the part: what it requires, and the simple options that have a default."""
    schema = core.get(family, name).Options.model_json_schema()
    options: dict[str, Any] = {"type": name}
    for key, option in schema.get("properties", {}).items():
        if "default" not in option:
            options[key] = _sample(option, schema.get("$defs", {}))
        elif isinstance(option["default"], (int, float, str)) and "family" not in option:
            options[key] = option["default"]
    return options


def _sample(option: dict[str, Any], groups: dict[str, Any]) -> Any:
    """A value that an option without default may have."""
    if "$ref" in option:
        inner = groups[option["$ref"].rpartition("/")[2]].get("properties", {})
        return {key: _sample(o, groups) for key, o in inner.items() if "default" not in o}
    if option.get("examples"):
        return option["examples"][0]
    if "family" in option:
        family = option["family"]
        return written_out(family, core.names(family)[0])
    option = next(iter(option.get("anyOf", [option])))
    if "enum" in option:
        return option["enum"][0]
    kind = option.get("type")
    if kind == "array":
        return [_sample(option["items"], groups)]
    if kind == "integer":
        return min(max(8, option.get("minimum", 8)), option.get("maximum", 8))
    return {"number": 0.001, "boolean": True}.get(str(kind), "...")


def inline(value: Any) -> str:
    """A value as YAML, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
