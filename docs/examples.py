"""Where in a page each family's parts stand, and YAML that puts one there."""

from collections.abc import Iterator
from textwrap import indent
from typing import Any

import yaml

from registry import core
from registry.options import Group, slot_family
from transformer_kit.spec import files
from transformer_kit.spec.schema import Layers, RunSpec

BASE = "quickstart"
"""The shipped page that every example is laid on."""


class Place:
    """Where in a page a family's slot stands, below parts that the base page has."""

    def __init__(self, keys: tuple[str, ...], many: bool) -> None:
        self.keys = keys
        self.many = many
        self.family = ""

    def example(self, name: str) -> str:
        """YAML that puts the part there."""
        value = _written(self.family, name)
        value = [value] if self.many else value
        outer = [f"{'  ' * i}{key}:" for i, key in enumerate(self.keys[:-1])]
        deep = isinstance(value, dict) and any(isinstance(v, dict) for v in value.values())
        inner = yaml.safe_dump({self.keys[-1]: value}, sort_keys=False, default_flow_style=None, width=100)
        inner = (
            inner if deep else inner.strip().removeprefix("{").removesuffix("}") if isinstance(value, str) else inner
        )
        return "\n".join([*outer, indent(inner.strip(), "  " * len(outer))])


def places() -> dict[str, Place]:
    """The shallowest place of each family."""
    found: dict[str, Place] = {}
    base = _base()
    pending: list[tuple[type[Group], tuple[str, ...]]] = [(RunSpec, ())]
    while pending:
        group, path = pending.pop(0)
        for key, field in group.model_fields.items():
            family = slot_family(field)
            keys = (*path, "block") if group is Layers else (*path, key)
            if family is None:
                pending += [(g, p) for p, g in _groups_of(field.annotation, keys)]
                continue
            many = group is not Layers and str(field.annotation).startswith("tuple")
            place = found.setdefault(family, Place(keys, many))
            place.family = family
            written = _at(base, keys)
            chosen = written.get("type") if isinstance(written, dict) else written
            if isinstance(chosen, str):
                pending.append((core.get(family, chosen).Options, keys))
    return found


def _groups_of(annotation: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], type[Group]]]:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Group):
            yield keys, candidate


def _written(family: str, name: str) -> Any:
    """A part as YAML: its bare name, or a mapping with what it cannot do without, taken from the base page."""
    fields = core.get(family, name).Options.model_fields
    known = {"paths": "corpus/*.jsonl" if name == "jsonl" else "corpus/*.txt"}
    needed = {k: known.get(k) or _anywhere(_base(), k) for k, field in fields.items() if field.is_required()}
    return {"type": name, **needed} if needed else name


def _anywhere(tree: Any, key: str) -> Any:
    """The first value under `key` at any depth."""
    if not isinstance(tree, dict):
        return None
    below = (found for value in tree.values() if (found := _anywhere(value, key)) is not None)
    return tree[key] if key in tree else next(below, None)


def _at(tree: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _base() -> dict[str, Any]:
    loaded = yaml.safe_load(files.locate(BASE).read_text("utf-8"))
    assert isinstance(loaded, dict)
    return {**loaded, "optimizer": {**loaded["optimizer"], "lr": float(loaded["optimizer"]["lr"])}}
