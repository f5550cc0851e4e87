"""Where in a spec each family's parts stand, and YAML that puts one there."""

from collections.abc import Iterator
from textwrap import indent
from typing import Any

import yaml

from registry import core
from registry.options import Group, slot_family
from transformer_kit.spec import files
from transformer_kit.spec.schema import Layers, RunSpec

BASE = "quickstart"
"""The shipped spec that every example is laid on."""


KNOWN: dict[str, Any] = {
    "paths": "corpus/*.txt",
    "factor": 4.0,
    "beta": 0.1,
    "length": 64,
    "original_max_seq_len": 256,
    "alpha": 8.0,
    "partial_rotary_factor": 0.25,
    "short_factor": [1.0, 1.0, 1.1, 1.2],
    "long_factor": [1.0, 2.0, 4.0, 8.0],
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "n_experts": 8,
    "decay": 60,
    "top_k": 2,
    "router": {"type": "softmax", "top_k": 2},
    "expert": {"type": "gated", "d_ff": 128},
}
"""Values of required options that the base spec has not."""
FITTED: dict[tuple[str, str], dict[str, Any]] = {
    ("dataset", "jsonl"): {"paths": "corpus/*.jsonl"},
    ("scaling", "longrope"): {"around": {"partial_rotary_factor": 0.25}},
}
"""Values for one part alone; `around` is for the part that holds it."""


class Place:
    """Where in a spec a family's slot stands; `around` is what the part that holds it needs beside it."""

    def __init__(self, family: str, keys: tuple[str, ...], many: bool, around: dict[str, Any]) -> None:
        self.family, self.keys, self.many, self.around = family, keys, many, around

    def example(self, name: str) -> str:
        """YAML that puts the part there."""
        keys = self.keys[:-1] if self.around else self.keys
        value = _written(self.family, name)
        value = [value] if self.many else value
        if self.around:
            beside = FITTED.get((self.family, name), {}).get("around", {})
            value = {**self.around, **beside, self.keys[-1]: value}
        outer = [f"{'  ' * i}{key}:" for i, key in enumerate(keys[:-1])]
        inner = yaml.safe_dump({keys[-1]: value}, sort_keys=False, default_flow_style=None, width=100).strip()
        inner = inner.removeprefix("{").removesuffix("}") if isinstance(value, str) else inner
        return "\n".join([*outer, indent(inner, "  " * len(outer))])


def places() -> dict[str, Place]:
    """A place of each family: the shallowest below parts that the base spec has, else in another part of those."""
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
            found.setdefault(family, Place(family, keys, many, _around(group, key)))
            written = _at(base, keys)
            chosen = written.get("type") if isinstance(written, dict) else written
            if isinstance(chosen, str):
                pending.append((core.get(family, chosen).Options, keys))
    return found | {f: place for f in core.families() if f not in found and (place := _elsewhere(f, found))}


def _elsewhere(family: str, found: dict[str, Place]) -> Place | None:
    """A place in a part that the base spec does not have, of a family that has a place."""
    for outer, place in found.items():
        for name in core.names(outer):
            options = core.get(outer, name).Options
            for key, field in options.model_fields.items():
                if slot_family(field) == family:
                    return Place(family, (*place.keys, key), False, _around(options, key))
    return None


def _around(group: type[Group], key: str) -> dict[str, Any]:
    """What the part with these options needs, where not all of its family have the option `key`; else nothing."""
    part = getattr(group, "part", None)
    if part is None or any(
        key in contract.model_fields for contract in group.__mro__[1:] if issubclass(contract, Group)
    ):
        return {}
    written = _written(part.family, part.name)
    return written if isinstance(written, dict) else {"type": written}


def _groups_of(annotation: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], type[Group]]]:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Group):
            yield keys, candidate


def _written(family: str, name: str) -> Any:
    """A part as YAML: its bare name, or a mapping with what it cannot do without, taken from the base spec."""
    fields = core.get(family, name).Options.model_fields
    known = KNOWN | FITTED.get((family, name), {})
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
