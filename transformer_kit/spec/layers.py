"""Stacks of unequal layers, in one mechanism: `count`, `block`, `kinds`, `pattern`, `at`.

    count: 12                       number of layers
    block: {...}                    the default block
    kinds: {local: {...}}           variants, merged onto `block`
    pattern: [local*3, block]       their order, repeated to `count`
    at: {-1: {...}}                 single layers, merged last; negative numbers count from the end

`expand` turns these keys into one block for each layer; `fold` turns the blocks back.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import PydanticCustomError

from registry.core import suggest
from transformer_kit.spec.errors import Mark, shown
from transformer_kit.spec.tree import Items, Table, difference, find, marks_of, merge, written

KEYS = ("count", "block", "kinds", "pattern", "at")
MAX_LAYERS = 1024
_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)(?:\*([0-9]{1,4}))?")

Wrong = tuple[tuple[Any, ...], str]
"""A fault and its path below `layers`."""


def expand(layers: Any) -> Any:
    """`{blocks: [...]}` from the five keys, for the validator; other values are returned unchanged."""
    if not isinstance(layers, Mapping) or "blocks" in layers:
        return layers
    wrong: list[Wrong] = []
    blocks = blocks_of(written(layers, "layers"), wrong)
    if wrong:
        raise PydanticCustomError("layers", "{text}", {"text": "; ".join(text for _, text in wrong)})
    return {"blocks": blocks}


def blocks_of(layers: Mapping[str, Any], wrong: list[Wrong], dropped: list[str] | None = None) -> Items:
    """One merged block for each layer, as far as the keys are valid.

    Faults are appended to `wrong`, options lost in merging to `dropped`.
    """
    sound = _check_keys(layers, wrong)
    kinds = _kinds(layers, wrong, dropped)
    names = list(_names(layers, kinds, wrong))
    changes = list(_indices(layers, wrong)) if sound else []
    if wrong and not (sound and names):
        return Items()
    count: int = layers["count"]
    if count % len(names):
        wrong.append((("pattern",), f"count ({count}) must be a multiple of the pattern's length, got {len(names)}"))
    order = [names[i % len(names)] for i in range(count)]
    blocks = [kinds[name] for name in order]
    marks = [_mark(layers, () if name == "block" else ("kinds", name), kinds[name]) for name in order]
    for key, index in changes:
        blocks[index] = merge(blocks[index], layers["at"][key], dropped, f"model.layers.at.{key}")
        marks[index] = _mark(layers, ("at", key), blocks[index]) or marks[index]
    return _items(blocks, marks)


def spare_blocks(layers: Mapping[str, Any]) -> Items:
    """Every written block, used by a layer or not: `block` and each kind, merged."""
    kinds = _kinds(layers, [], None)
    names = [name for name, block in kinds.items() if isinstance(block, Mapping)]
    marks = [_mark(layers, () if name == "block" else ("kinds", name), kinds[name]) for name in names]
    return _items([kinds[name] for name in names], marks)


def kinds_of(layers: Mapping[str, Any]) -> dict[str, Any]:
    """`block`, and each kind merged onto it, by name."""
    return _kinds(layers, [], None)


def unused(layers: Mapping[str, Any]) -> list[str]:
    """The kinds that no layer uses."""
    kinds = _kinds(layers, [], None)
    return sorted({*kinds} - {"block"} - {*_names(layers, kinds, [])})


def _items(blocks: list[Any], marks: list[Mark | None]) -> Items:
    items = Items(blocks)
    items.values_at = [m for m in marks if m is not None] if all(marks) else []
    return items


def _mark(layers: Mapping[str, Any], change: tuple[Any, ...], merged: Any) -> Mark | None:
    """Place of a block: at `block`, unless a change of another type replaced it as a whole."""
    value: Any = layers[change[0]][change[1]] if change else None
    if merged is not value:
        return find(layers, ("block",))
    mark = find(layers, change)
    if mark is None or not isinstance(layers.get("block"), Mapping):
        return mark
    via = f"'{value['type']}' replaces the type of `block`, and nothing is carried over"
    return replace(mark, via=mark.via or via)


def _check_keys(layers: Mapping[str, Any], wrong: list[Wrong]) -> bool:
    """Whether layers can be expanded, apart from unknown keys."""
    unknown = [key for key in layers if key not in KEYS]
    wrong += [((key,), f"no key '{key}' in layers{suggest(str(key), [*KEYS])}") for key in unknown]
    wrong += [((), f"needs '{key}'") for key in ("count", "block") if key not in layers]
    count, block = layers.get("count", 1), layers.get("block", {})
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_LAYERS:
        wrong.append((("count",), f"must be a whole number from 1 to {MAX_LAYERS}, got {shown(count)}"))
    if not isinstance(block, Mapping):
        wrong.append((("block",), f"must be a mapping with `type:`, a mixer and an ffn, got {shown(block)}"))
    for key, empty, word in (("kinds", {}, "mapping"), ("pattern", [], "list"), ("at", {}, "mapping")):
        if not isinstance(layers.get(key, empty), type(empty)):
            wrong.append(((key,), f"must be a {word}, got {shown(layers[key])}"))
    return len(wrong) == len(unknown)


def _kinds(layers: Mapping[str, Any], wrong: list[Wrong], dropped: list[str] | None) -> dict[str, Any]:
    """`block`, and each kind merged onto it."""
    kinds = layers.get("kinds", {})
    merged = {"block": layers.get("block")}
    for name, change in kinds.items() if isinstance(kinds, Mapping) else ():
        if name == "block" or not isinstance(name, str) or not _STEP.fullmatch(name) or "*" in name:
            text = f"a kind needs a name of its own, of letters, digits and _, got {shown(name)}"
            wrong.append((("kinds", name), text))
        elif not isinstance(change, Mapping):
            wrong.append((("kinds", name), f"must be a mapping of changes to `block`, got {shown(change)}"))
        else:
            merged[name] = merge(merged["block"], change, dropped, f"model.layers.kinds.{name}")
    return merged


def _names(layers: Mapping[str, Any], kinds: dict[str, Any], wrong: list[Wrong]) -> Iterator[str]:
    pattern = layers.get("pattern", ["block"])
    if not isinstance(pattern, list):
        return
    if not pattern:
        wrong.append((("pattern",), "must name at least one kind, got an empty list"))
    total = 0
    for i, step in enumerate(pattern):
        match = _STEP.fullmatch(step) if isinstance(step, str) else None
        times = int(match[2] or 1) if match else 0
        total += times
        if match is None or times < 1 or total > MAX_LAYERS:
            wrong.append(
                (("pattern", i), f"must be a kind or kind*n, of at most {MAX_LAYERS} layers, got {shown(step)}")
            )
        elif match[1] not in kinds:
            wrong.append((("pattern", i), f"no kind '{match[1]}'{suggest(match[1], [*kinds])}"))
        else:
            yield from [match[1]] * times


def _indices(layers: Mapping[str, Any], wrong: list[Wrong]) -> Iterator[tuple[Any, int]]:
    """Each key of `at` and its layer index."""
    count: int = layers["count"]
    seen: dict[int, Any] = {}
    for key, change in layers.get("at", {}).items():
        whole = isinstance(key, int) and not isinstance(key, bool)
        index = key + count if whole and key < 0 else key
        if not whole or not 0 <= index < count:
            wrong.append((("at", key), f"must be a layer from {-count} to {count - 1}, got {shown(key)}"))
        elif index in seen:
            wrong.append((("at", key), f"is the same layer as {seen[index]}"))
        elif not isinstance(change, Mapping):
            wrong.append((("at", key), f"must be a mapping of changes to the layer, got {shown(change)}"))
        else:
            seen[index] = key
            yield key, index


def fold(blocks: list[Any]) -> dict[str, Any]:
    """The keys of `layers` for given blocks: the most frequent block, others as kinds, the order as a pattern.

    Blocks that merging cannot make from the most frequent one are listed one by one, as `blocks`.
    """
    texts = [json.dumps(block) for block in blocks]
    counts = Counter(texts)
    common = counts.most_common(1)[0][0]
    names = {text: f"kind_{i}" for i, text in enumerate((t for t in counts if t != common), 1)}
    block = json.loads(common)
    layers: dict[str, Any] = {"count": len(blocks), "block": block}
    if names:
        layers["kinds"] = {name: difference(block, json.loads(text)) for text, name in names.items()}
        layers["pattern"] = _run_lengths(_period([names.get(text, "block") for text in texts]))
    merged = [json.dumps(b, sort_keys=True) for b in blocks_of(layers, [])]
    same = merged == [json.dumps(b, sort_keys=True) for b in blocks]
    return layers if same else {"blocks": blocks}


def _period(names: list[str]) -> list[str]:
    """The shortest list whose repetition gives `names`."""
    n = len(names)
    return next(names[:p] for p in range(1, n + 1) if n % p == 0 and names[:p] * (n // p) == names)


def _run_lengths(names: list[str]) -> list[str]:
    runs: list[tuple[str, int]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    return [name if n == 1 else f"{name}*{n}" for name, n in runs]


def marked(layers: Mapping[str, Any], blocks: Items) -> Table:
    """The expanded layers, with the places of their keys."""
    table = Table()
    table.put("blocks", blocks, *marks_of(layers, "block"))
    return table
