"""Random edits: of values in a tree, by type, sign, size and nesting, and of the text of a file."""

import json
import string
from random import Random
from typing import Any

Tree = Any

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 1000, 10**6, 10**9, -(10**9), 2**63, 10**30, 10**400, 0.0, -0.5, 0.3, 1.5,
    1e-300, 1e308, float("nan"), float("inf"), "", "x", "1", "true", "null", "none", "default", "\0", "a\nb", "../..",
    "/dev/zero", "x" * 300, "x" * 100_000, [], {}, [[]], [None], [0], [-1], ["x"], [1] * 1000, ["x"] * 5000,
    {"type": "x"}, {"type": None}, {"a": {"b": [1]}}, {str(i): i for i in range(500)}, "\ud800", {"\ud800": 1}, {"": 0},
]  # fmt: skip


def deep(levels: int) -> Tree:
    """A value nested in so many lists and mappings."""
    value: Tree = 1
    for i in range(levels):
        value = [value] if i % 2 else {"a": value}
    return value


def places(tree: Tree, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values below the root, but for those deep within."""
    if len(path) > 200:
        return []
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree[:50]) if isinstance(tree, list) else ()
    return [p for key, value in inner for p in ((*path, key), *places(value, (*path, key)))]


def changed(value: Tree, chance: Random) -> Tree:
    """Another value, often one that is near."""
    near: list[Any] = [[value], {"a": value}, str(value), [value] * 1000, deep(40), deep(100)]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        near += [-value, value + 1, value - 1, value * 10, value * 1000, value * 10**6, value / 2, float(value)]
    if isinstance(value, str):
        near += [value.upper(), value[:-1], value + "x", value * 2000, value.replace("_", "-")]
    if isinstance(value, list):
        near += [value[:-1], value[1:], value * 2, value * 500, value[::-1], dict(enumerate(map(str, value)))]
    if isinstance(value, dict):
        near += [[*value.items()], [*value], {k: v for k, v in value.items() if chance.random() < 0.5}]
    return chance.choice(ODD if chance.random() < 0.6 else near)


def edited(tree: Tree, chance: Random, extra: list[str] | None = None) -> Tree:
    """A copy of a tree with one to three values changed, taken away, moved or added; `extra` are keys to add."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        tree = json.loads(json.dumps(tree))  # in which no value stands twice
        found = places(tree)
        if not found:
            return changed(tree, chance)
        *above, key = chance.choice(found)
        here = tree
        for step in above:
            here = here[step]
        act = chance.random()
        if act < 0.08:
            del here[key]
        elif act < 0.16 and isinstance(here, dict):
            here[chance.choice([*(extra or ["x"]), "type", "x" * 200])] = changed(here[key], chance)
        elif act < 0.24:
            other = chance.choice(found)
            value = tree
            for step in other:
                value = value[step] if isinstance(value, (dict, list)) and _has(value, step) else None
            here[key] = json.loads(json.dumps(value))
        else:
            here[key] = changed(here[key], chance)
    return tree


def _has(value: Tree, step: Any) -> bool:
    return step in value if isinstance(value, dict) else isinstance(step, int) and step < len(value)


def scratched(content: bytes, chance: Random) -> bytes:
    """A copy of a file with a part cut, repeated, overwritten or put in."""
    start = chance.randrange(len(content) + 1)
    length = chance.choice([1, 1, 2, 5, 50, 1000, len(content)])
    noise = [
        b"",
        chance.randbytes(chance.choice([1, 4, 100])),
        "".join(chance.choices(string.printable, k=8)).encode(),
        b"[" * chance.choice([1, 100, 100_000]),
        b'{"a":' * chance.choice([1, 100, 100_000]),
        b"\xff\xfe",
        b"\\ud800",
        b"9" * chance.choice([5, 400, 10_000]),
        content[start : start + length] * chance.choice([2, 50]),
    ]
    return content[:start] + chance.choice(noise) + content[start + chance.choice([0, length]) :]
