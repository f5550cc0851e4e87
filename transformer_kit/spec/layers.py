"""The one mechanism for stacks of unequal layers: `count`, `block`, `kinds`, `pattern`, `at`.

    count: 12                       how many
    block: {...}                    what they are
    kinds: {local: {...}}           variants, merged onto `block`
    pattern: [local*3, block]       their order, repeated to `count`
    at: {-1: {...}}                 single layers, merged last; negative numbers count from the end

`expand` turns this into one block for each layer; `fold` turns the blocks back.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from transformer_kit.spec.tree import Items, Table, find, marks_of, merge

KEYS = ("count", "block", "kinds", "pattern", "at")
MAX_LAYERS = 4096
_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)(?:\*([0-9]{1,4}))?")

Wrong = tuple[tuple[Any, ...], str]
"""What is wrong and the path, below `layers`, where it is."""


def expand(layers: Any) -> Any:
    """`{blocks: [...]}` from the five keys, for the validator; anything else is handed on."""
    if not isinstance(layers, Mapping) or "blocks" in layers:
        return layers
    wrong: list[Wrong] = []
    blocks = blocks_of(layers, wrong)
    if wrong:
        raise PydanticCustomError("layers", "{text}", {"text": "; ".join(text for _, text in wrong)})
    return {"blocks": blocks}


def blocks_of(layers: Mapping[str, Any], wrong: list[Wrong], dropped: list[str] | None = None) -> Items:
    """One merged block for each layer. What is wrong is appended to `wrong`, options lost in merging to `dropped`."""
    _check_keys(layers, wrong)
    count, block = layers.get("count"), layers.get("block")
    kinds = {"block": block, **_kinds(layers, wrong, dropped)}
    names = list(_names(layers, kinds, wrong))
    if wrong or not names:
        return Items()
    if count % len(names):
        wrong.append((("pattern",), f"count ({count}) must be a multiple of the pattern's length, got {len(names)}"))
        return Items()
    blocks = Items(kinds[names[i % len(names)]] for i in range(count))
    for index, change in _changes(layers, count, wrong):
        blocks[index] = merge(blocks[index], change, dropped, f"layers.at.{index}")
    mark = marks_of(layers, "block")[1] or find(layers, ("block",))
    blocks.values_at = [mark] * count if mark else []
    return blocks


def _check_keys(layers: Mapping[str, Any], wrong: list[Wrong]) -> None:
    for key in layers:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; choose from {', '.join(KEYS)}"
            wrong.append(((key,), f"no key '{key}' in layers{hint}"))
    wrong += [((), f"layers needs '{key}'") for key in ("count", "block") if key not in layers]
    count, block = layers.get("count", 1), layers.get("block", {})
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_LAYERS:
        wrong.append((("count",), f"must be a whole number from 1 to {MAX_LAYERS}, got {count!r}"))
    if not isinstance(block, Mapping) and not hasattr(block, "model_fields_set"):
        wrong.append((("block",), f"must be a mapping with `type:`, a mixer and an ffn, got {block!r}"))
    for key, kind in (("kinds", Mapping), ("at", Mapping), ("pattern", list)):
        if not isinstance(layers.get(key, kind()) if kind is list else layers.get(key, {}), kind):
            wrong.append(((key,), f"must be a {'list' if kind is list else 'mapping'}, got {layers[key]!r}"))


def _kinds(layers: Mapping[str, Any], wrong: list[Wrong], dropped: list[str] | None) -> dict[str, Any]:
    kinds = layers.get("kinds", {})
    if not isinstance(kinds, Mapping):
        return {}
    merged = {}
    for name, change in kinds.items():
        if name == "block" or not isinstance(name, str) or not _STEP.fullmatch(name):
            wrong.append((("kinds", name), f"a kind needs a name of its own, of letters, digits and _, got {name!r}"))
        elif not isinstance(change, Mapping):
            wrong.append((("kinds", name), f"must be a mapping of changes to `block`, got {change!r}"))
        else:
            merged[name] = merge(layers.get("block"), change, dropped, f"layers.kinds.{name}")
    return merged


def _names(layers: Mapping[str, Any], kinds: dict[str, Any], wrong: list[Wrong]) -> Iterator[str]:
    pattern = layers.get("pattern", ["block"])
    if not isinstance(pattern, list):
        return
    if not pattern:
        wrong.append((("pattern",), "must name at least one kind"))
    total = 0
    for i, step in enumerate(pattern):
        match = _STEP.fullmatch(step) if isinstance(step, str) else None
        times = int(match[2] or 1) if match else 0
        total += times
        if match is None or times < 1 or total > MAX_LAYERS:
            wrong.append((("pattern", i), f"must be a kind or kind*n, of at most {MAX_LAYERS} layers, got {step!r}"))
        elif match[1] not in kinds:
            wrong.append((("pattern", i), f"no kind '{match[1]}'; choose from {', '.join(kinds)}"))
        else:
            yield from [match[1]] * times


def _changes(layers: Mapping[str, Any], count: int, wrong: list[Wrong]) -> Iterator[tuple[int, Any]]:
    seen: dict[int, Any] = {}
    for key, change in layers.get("at", {}).items():
        index = key + count if isinstance(key, int) and key < 0 else key
        if not isinstance(index, int) or not 0 <= index < count:
            wrong.append((("at", key), f"must be a layer from {-count} to {count - 1}, got {key!r}"))
        elif index in seen:
            wrong.append((("at", key), f"is the same layer as {seen[index]}"))
        elif not isinstance(change, Mapping):
            wrong.append((("at", key), f"must be a mapping of changes to the layer, got {change!r}"))
        else:
            seen[index] = key
            yield index, change


def fold(blocks: list[Any]) -> dict[str, Any]:
    """The five keys for given blocks: the commonest block, the others as kinds, the order as a pattern."""
    distinct: list[Any] = []
    for block in blocks:
        if block not in distinct:
            distinct.append(block)
    common = max(distinct, key=blocks.count)
    others = [b for b in distinct if b != common]
    layers: dict[str, Any] = {"count": len(blocks), "block": common}
    if others:
        layers["kinds"] = {f"kind_{i}": b for i, b in enumerate(others, 1)}
        names = ["block" if b == common else f"kind_{others.index(b) + 1}" for b in blocks]
        layers["pattern"] = _run_lengths(_period(names))
    return layers


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
    """The expanded layers, still knowing where their parts were written."""
    table = Table()
    table.put("blocks", blocks, *marks_of(layers, "block"))
    return table
