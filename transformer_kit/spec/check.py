"""From a tree of values to a checked spec: version, plugins, expanded layers, then the schema; all errors at once.

The caller passes the schema's class, so that the schema itself can offer `Spec.of`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from registry import core, plugins
from registry.options import Group
from transformer_kit.spec import explain
from transformer_kit.spec.errors import Mark, Problem, SpecError, shown
from transformer_kit.spec.layers import Wrong, blocks_of, marked, spare_blocks, unused
from transformer_kit.spec.tree import Items, Table, find, written

S = TypeVar("S", bound=Group)

VERSION = 1
"""Version of the spec language."""


@dataclass
class Source:
    """The source of a spec: its values with their places, with layers expanded, and the notes from reading."""

    tree: Any
    start: Mark
    notes: list[str] = field(default_factory=list)

    def mark(self, path: tuple[Any, ...]) -> Mark:
        """Place of the value at `path`, or of the nearest value around it."""
        return find(self.tree, path) or self.start


def from_mapping(value: dict[str, Any], kind: type[S]) -> S:
    """The spec that a mapping describes; parts in it may be Options objects. Raises SpecError."""
    start = Mark("spec")
    if not isinstance(value, Mapping):
        raise SpecError([Problem(start, f"must be a mapping of keys to values, got {shown(value)}")])
    return checked(written(value, start.file), kind, start, [])


def checked(tree: Mapping[str, Any], kind: type[S], start: Mark, notes: list[str]) -> S:
    """Validate a merged tree. Raises SpecError with all faults."""
    version = tree.get("kit", VERSION)
    if type(version) is not int or version != VERSION:
        text = f"must be {VERSION}, the version of the spec language, got {shown(version)}"
        raise SpecError([Problem(find(tree, ("kit",)) or start, text)])
    wrong: list[Problem] = []
    usable = _with_installed(tree, wrong, start)
    expanded = _expand(usable, kind, wrong, start, notes)
    covered = {problem.mark for problem in wrong}
    try:
        spec = kind.model_validate(expanded)
    except ValidationError as error:
        wrong += [p for p in explain.problems(error, expanded, kind, start) if p.mark not in covered]
    if wrong:
        raise SpecError(wrong)
    object.__setattr__(spec, "_source", Source(expanded, start, notes))
    return spec


def _with_installed(tree: Mapping[str, Any], wrong: list[Problem], start: Mark) -> Mapping[str, Any]:
    """The tree with its usable plugins alone; faults of the others are appended to `wrong`."""
    listed = tree.get("plugins")
    if not isinstance(listed, list):
        return tree
    kept = Items()
    for i, name in enumerate(listed):
        problem = plugins.problem(name) if isinstance(name, str) else None
        mark = find(tree, ("plugins", i)) or start
        if problem is None:
            kept.append(name)
            kept.values_at.append(mark)
        else:
            wrong.append(Problem(mark, problem))
    return _with(tree, "plugins", kept)


def _expand(tree: Mapping[str, Any], kind: type[S], wrong: list[Problem], start: Mark, notes: list[str]) -> Any:
    """The tree with `model.layers` expanded to one block for each layer."""
    model = tree.get("model")
    layers = model.get("layers") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(layers, Mapping) or "blocks" in layers:
        return tree
    found: list[Wrong] = []
    blocks = blocks_of(layers, found, notes)
    wrong += [Problem(find(tree, ("model", "layers", *path)) or start, text) for path, text in found]
    idle = unused(layers)
    if not found and idle:
        notes += [f"{find(layers, ('kinds', name)) or start}: no layer is of the kind '{name}'" for name in idle]
        wrong += _idle_problems(tree, layers, kind, start)
    if found:  # check the rest: the blocks themselves
        spare = spare_blocks(layers)
        marks = [*blocks.values_at, *spare.values_at]
        blocks = Items([*blocks, *spare])
        blocks.values_at = marks
    return _with(tree, "model", _with(model, "layers", marked(layers, blocks)))


def _idle_problems(tree: Mapping[str, Any], layers: Mapping[str, Any], kind: type[S], start: Mark) -> list[Problem]:
    """Faults of blocks that no layer uses, which no other check covers."""
    table = marked(layers, spare_blocks(layers))
    listed = tree.get("plugins")
    names = frozenset(n for n in listed if isinstance(n, str)) if isinstance(listed, list) else frozenset()
    model: Any = kind.model_fields["model"].annotation
    schema = model.model_fields["layers"].annotation
    try:
        with core.activate(names):
            schema.model_validate(table)
    except ValidationError as error:
        return explain.problems(error, table, schema, start)
    return []


def _with(source: Mapping[Any, Any], key: Any, value: Any) -> Table:
    table = Table()
    for k in source:
        table.take(k, source, value if k == key else source[k])
    return table
