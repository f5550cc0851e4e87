"""An example of a part in a spec: its required options, its simple options, and the parts around it that it needs.

Merged onto the kit's quickstart by `extends`, the example passes `kit check`; files that it names are the reader's own.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from registry import core
from registry.options import Group, slot_family
from transformer_kit.spec.explain import group_of
from transformer_kit.spec.schema import RunSpec

BASE = "quickstart"
LENGTHS = (None, 16, 8, 32, 64)
"""Lengths of lists to try; the first is that of the option's own example."""


def inline(value: Any) -> str:
    """A value as YAML, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def example(family: str, name: str) -> str:
    """The part in the first slot where it is valid; an example that passes, if there is one."""
    first: dict[str, Any] | None = None
    for page in _pages(family, name):
        first = first or page
        if _passes(page):
            return _text(page)
    return "" if first is None else _text(first)


def written_out(family: str, name: str, length: int | None = None) -> dict[str, Any]:
    """A mapping for the part: its required options, and the simple options that have a default.

    Lists have `length` items if it is given.
    """
    schema = core.get(family, name).Options.model_json_schema()
    options: dict[str, Any] = {"type": name}
    for key, option in schema.get("properties", {}).items():
        if "default" not in option:
            options[key] = _sample(option, schema.get("$defs", {}), length)
        elif isinstance(option["default"], (int, float, str)) and "family" not in option:
            options[key] = option["default"]
    return options


def places(family: str, inside: tuple[str, ...] = ()) -> list[str]:
    """Paths, from the top of a spec, of slots for a part of this family, outside of families in `inside`."""
    found = slots(RunSpec, "", family)
    for holder in core.families():
        if holder not in (family, *inside):
            keys = {key for name in core.names(holder) for key in _held(holder, name, family)}
            found += [f"{above}.{key}" for key in sorted(keys) for above in places(holder, (family, *inside))]
    return list(dict.fromkeys(found))


def slots(group: type[Group], prefix: str, family: str) -> list[str]:
    """Paths inside a group of options, nested groups included, of slots for a part of this family."""
    found = []
    for name, field in group.model_fields.items():
        path = f"{prefix}{name}".replace("layers.blocks", "layers.block")
        if slot_family(field) == family:
            found.append(path)
        inner = None if slot_family(field) else group_of(field.annotation)
        if inner is not None:
            found += slots(inner, f"{path}.", family)
    return found


def _pages(family: str, name: str) -> Iterator[dict[str, Any]]:
    """Specs that hold the part, the shortest first; each at least once."""
    for length in LENGTHS:
        written: Any = written_out(family, name, length)
        yield from _around(family, name if list(written) == ["type"] else written, (family,), False)
    yield from _around(family, written_out(family, name), (family,), True)


def _around(family: str, written: Any, inside: tuple[str, ...], whole: bool) -> Iterator[dict[str, Any]]:
    """Specs with the part in a slot of the spec itself, or of another part.

    Required options of an enclosing part are left to the spec, or written out if `whole`.
    """
    for path in slots(RunSpec, "", family):
        yield _nested(path.split("."), written)
    for holder in core.families():
        if holder in inside:
            continue
        for name in core.names(holder):
            for key in _held(holder, name, family):
                fields = core.get(holder, name).Options.model_fields
                short = not any(field.is_required() for n, field in fields.items() if n != key)
                outer = {"type": name, key: written} if short else {key: written}
                outer = {**written_out(holder, name), key: written} if whole and not short else outer
                yield from _around(holder, outer, (holder, *inside), False)


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    value = [value] if path[-1].endswith("s") else value
    for key in reversed(path):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def _held(holder: str, name: str, family: str) -> list[str]:
    """Options of a part that hold a part of `family`."""
    try:
        options = core.get(holder, name).Options
    except core.RegistryError:
        return []
    return [key for key, field in options.model_fields.items() if slot_family(field) == family]


def _passes(page: dict[str, Any]) -> bool:
    """Whether the spec's model can be assembled; files that it names may be missing."""
    from transformer_kit.model.build import assemble_distinct
    from transformer_kit.spec.errors import SpecError
    from transformer_kit.spec.read import read

    try:
        assemble_distinct(read({"extends": BASE, "plugins": sorted(core.active()), **page}))
    except SpecError:
        return False
    return True


def _text(page: dict[str, Any]) -> str:
    """The spec in YAML, one line for each level down to the part."""
    lines, value, depth = [], page, 0
    while len(value) == 1:
        (key,) = value
        if not isinstance(value[key], dict) or "type" in value[key]:
            break
        lines.append(f"{'  ' * depth}{key}:")
        value, depth = value[key], depth + 1
    return "\n".join([*lines, *(f"{'  ' * depth}{key}: {inline(inner)}" for key, inner in value.items())])


def _sample(option: dict[str, Any], groups: dict[str, Any], length: int | None) -> Any:
    """A possible value of an option without default."""
    if "$ref" in option:
        inner = groups[option["$ref"].rpartition("/")[2]].get("properties", {})
        return {key: _sample(o, groups, length) for key, o in inner.items() if "default" not in o}
    if option.get("examples"):
        found = option["examples"][0]
        return (found * length)[:length] if isinstance(found, list) and length is not None else found
    if "family" in option:
        family = option["family"]
        return written_out(family, core.names(family)[0], length)
    option = next(iter(option.get("anyOf", [option])))
    if "enum" in option:
        return option["enum"][0]
    kind = option.get("type")
    if kind == "array":
        return [_sample(option["items"], groups, length)]
    if kind == "integer":
        return min(max(8, option.get("minimum", 8)), option.get("maximum", 8))
    if kind == "number":
        return min(max(2.0, option.get("minimum", 2.0)), option.get("maximum", 2.0))
    return {"boolean": True}.get(str(kind), "my-text")
