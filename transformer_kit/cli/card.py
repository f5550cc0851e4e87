"""The card of a part: options with types and defaults, papers, capabilities, and an example to copy into a spec."""

import inspect
import re
import typing
from typing import Any, ClassVar

from registry import core
from registry.contracts import Part
from transformer_kit.cli.example import example, places

_ARXIV = re.compile(r"arXiv:([0-9]{4}\.[0-9]{4,5})")
_WORDS = {"integer": "int", "number": "float", "string": "text", "boolean": "bool"}
_LIMITS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
}
_UNLIMITED = 1e6
"""Larger bounds only exclude absurd values; the card omits them."""


def describe(family: str, name: str) -> dict[str, Any]:
    """The card of a part. Raises RegistryError for an unknown part."""
    part = core.get(family, name)
    schema = part.Options.model_json_schema()
    module = inspect.getmodule(part)
    text = " ".join(line for line in (inspect.getdoc(module) or "").split("\n\n", 1)[0].splitlines())
    return {
        "family": family,
        "name": name,
        "documentation": "\n".join(filter(None, [text, inspect.getdoc(part)])),
        "papers": [f"https://arxiv.org/abs/{id}" for id in dict.fromkeys(_ARXIV.findall(text))],
        "capabilities": _capabilities(part),
        "source": f"{inspect.getsourcefile(part)}:{inspect.getsourcelines(part)[1]}",
        "options": _options(schema),
        "groups": {k: v.get("description", "") for k, v in schema.get("properties", {}).items() if "$ref" in v},
        "places": places(family),
        "example": example(family, name),
    }


def _capabilities(part: type[Part]) -> dict[str, Any]:
    """Class attributes of the part that its contract declares."""
    contract = next(c for c in part.__mro__ if "family" in c.__dict__)
    declared = {key: kind for cls in reversed(contract.__mro__) for key, kind in _class_variables(cls).items()}
    asked = [key for key in declared if key not in ("family", "name", "identity")]
    values = {key: getattr(part, key) for key in asked}
    return {
        k: sorted(v) if isinstance(v, (frozenset, tuple)) else v for k, v in values.items() if v not in ((), "", {})
    }


def _class_variables(cls: type) -> dict[str, Any]:
    """Class attributes that a contract declares; none for classes outside the registry."""
    origins: dict[str, Any] = {key: typing.get_origin(kind) for key, kind in inspect.get_annotations(cls).items()}
    return {k: o for k, o in origins.items() if o is ClassVar} if issubclass(cls, Part) else {}


def _options(schema: dict[str, Any], prefix: str = "", groups: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """One entry for each option; fields of a group follow it, with dotted names."""
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
        return f"{option['family']} part"
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
