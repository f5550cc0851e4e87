"""Origin of a value in a spec: a line of a spec, a spec it extends, `--set`, or the default of its field."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry.options import Group, Options, plain
from registry.words import likely, meaning, suggest
from transformer_kit.model.used import BLOCKS, LAYERS, Used
from transformer_kit.spec.errors import Mark, Problem, SpecError
from transformer_kit.spec.explain import within
from transformer_kit.spec.layers import KEYS
from transformer_kit.spec.read import read, tree_of
from transformer_kit.spec.schema import Layers
from transformer_kit.spec.tree import at, find, marks_of


@dataclass(frozen=True)
class Provenance:
    """A value and its origin."""

    path: str
    value: Any
    """The value as in YAML, defaults included."""
    mark: Mark | None
    """Its place; None for a default."""
    owner: str
    """The part or group that has the field."""
    documentation: str
    defaults: tuple[str, ...] = ()
    """Dotted paths of defaults inside `value`."""

    @property
    def origin(self) -> str:
        """`page`, `extends` (a spec it builds on), `set` (the command line) or `default`."""
        if self.mark is None:
            return "default"
        if not self.mark.via:
            return "page"
        return "set" if self.mark.via.startswith("--set") else "extends"

    def whence(self) -> str:
        """The origin as a sentence."""
        if self.mark is None:
            return f"not written: the default of {self.owner}"
        if self.origin == "set":
            return f"given by {self.mark.via}"
        via = f" ({self.mark.via})" if self.mark.via else ""
        return f"written in {self.mark}{via}"

    def data(self) -> dict[str, Any]:
        """The same for JSON."""
        place = asdict(self.mark or Mark(""))
        known = {"path": self.path, "value": self.value, "origin": self.origin, "owner": self.owner}
        known |= {k: place[k] for k in ("file", "line", "column", "via")}
        return known | {"documentation": self.documentation, "defaults": list(self.defaults)}


def provenance(spec: str | Path, path: str | None, sets: Sequence[str] = ()) -> Provenance:
    """The value at the dotted `path` of a spec, with its origin; without a path, the whole spec.

    Layers go by number, as in `model.layers.0.ffn`, or by the key in the spec, as in `model.layers.block.ffn`.

    Raises SpecError for a wrong spec, and for an unknown path.
    """
    page = read(spec, sets)
    tree, _, _ = tree_of(spec, sets)
    used = Used(page, at(tree, LAYERS))
    walk = _Walk(page, page._source.tree, path or "", used)
    if path is None:
        walk.mark = page._source.start
        return walk.found()
    keys = tuple(path.split("."))
    if keys[:2] == LAYERS and len(keys) > 2 and keys[2] in KEYS:
        named = _named(used.layers, keys[2:])
        if named is None:
            return _written(tree, path, keys)
        keys = walk.enter(*named)
    for key in keys:
        walk.step(key)
    return walk.found()


def _named(layers: Any, keys: tuple[str, ...]) -> tuple[tuple[Any, ...], tuple[str, ...]] | None:
    """Split `keys` at a whole block that the spec writes. None when it writes none there."""
    count = 1 if keys[0] == "block" else 2
    if keys[0] not in ("block", "kinds", "at") or len(keys) < count:
        return None
    members = [keys[0]] if count == 1 else _members(at(layers, keys[:1]))
    real = next((key for key in members if str(key) == keys[count - 1]), None)
    if real is None or at(layers, (*keys[: count - 1], real)) is None:
        return None
    return (*keys[: count - 1], real), keys[count:]


def _written(tree: Any, path: str, keys: tuple[str, ...]) -> Provenance:
    """The spec's keys for its layers, before merging."""
    mark = None
    for i, key in enumerate(keys):
        here: Any = at(tree, keys[:i]) if i else tree
        known = _members(here)
        real = next((k for k in known if str(k) == key), None)
        if real is None:
            choices = suggest(key, [str(k) for k in known])
            raise _nowhere(path, f"the spec writes no '{key}' in {'.'.join(map(str, keys[:i]))}{choices}")
        keys = (*keys[:i], real, *keys[i + 1 :])
        mark = marks_of(here, real)[1]
    return Provenance(path, plain(at(tree, keys)), mark, "layers", "")


def _members(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value)
    return list(range(len(value))) if isinstance(value, (list, tuple)) else []


class _Walk:
    """Walks down objects and written values together, as far as the spec writes something."""

    def __init__(self, value: Any, written: Any, path: str, used: Used) -> None:
        self.value = value
        self.written = written
        self.path = path
        self.used = used
        self.here: tuple[Any, ...] = ()
        self.mark: Mark | None = None
        self.owner = "the spec"
        self.documentation = ""

    def enter(self, named: tuple[Any, ...], inside: tuple[str, ...]) -> tuple[str, ...]:
        """Go to the block that the spec writes at `named`; return the remaining keys."""
        mark = find(self.used.layers, named)
        if named[0] == "at":
            index: int | None = named[1]
        else:
            index = self.used.layer_of(named[-1])
        if index is not None and inside:
            return (*LAYERS, str(index), *inside)
        if index is not None:
            self.here = (*BLOCKS, index % len(self.used.blocks))
            self.value, self.written = self.used.blocks[index], at(self.written, self.here)
        else:
            self.value, self.written = self.used.spare(named[-1])
        self.mark, self.owner = mark, "layers"
        return inside

    def found(self) -> Provenance:
        """Result of the walk."""
        value, defaults = self.used.plain(self.value, self.written, self.here)
        inner = tuple(defaults) if self.mark is not None else ()
        return Provenance(self.path, value, self.mark, self.owner, self.documentation, inner)

    def step(self, key: str) -> None:
        """Go down by one key."""
        if isinstance(self.value, Layers):
            self._field("blocks")
        if isinstance(self.value, Group):
            self._field(key)
        elif isinstance(self.value, (Mapping, list, tuple)):
            self._member(key)
        else:
            raise _nowhere(self.path, f"{plain(self.value)!r} has nothing inside, so no '{key}'")

    def _field(self, key: str) -> None:
        group: Any = self.value
        part = group.part.name if isinstance(group, Options) else None
        fields = type(group).model_fields
        if key == "type" and part is not None:
            self.value, self.documentation = part, f"which {group.part.family} it is"
            bare = isinstance(self.written, str)
            self.mark = self.mark if bare else self._below("type")
            return
        if key not in fields:
            names = [*(["type"] if part else []), *fields]
            inside = [] if meaning(key, names) else within(type(group), key)
            near = f"; did you mean '{inside[0]}'?" if inside else suggest(key, names)
            raise _nowhere(self.path, f"no '{key}' in {part or _called(type(group))}{near}")
        self.owner = f"{group.part.family} '{part}'" if part else _called(type(group))
        self.documentation = fields[key].description or ""
        self.here = (*self.here, key)
        self.value = self.used.at(self.here, getattr(group, key))
        self.mark = self._below(key)

    def _member(self, key: str) -> None:
        known = _members(self.value)
        number = int(key) if key.removeprefix("-").isdecimal() else None
        if not isinstance(self.value, Mapping) and number is not None and -len(known) <= number < len(known):
            real: Any = known[number]
        else:
            real = next((k for k in known if str(k) == key), None)
        if real is None:
            there = f"; there are {len(known)}, from 0"
            if isinstance(self.value, Mapping) or (self.here[-1] == "blocks" and likely(key, KEYS)):
                there = suggest(key, known if isinstance(self.value, Mapping) else KEYS)
            raise _nowhere(self.path, f"no '{key}' here{there}")
        self.here = (*self.here, real)
        self.value = self.value[real]
        self.mark = self._below(real)

    def _below(self, key: Any) -> Mark | None:
        """Go down to the value written at `key`, and return its place; None where only defaults follow."""
        mark = marks_of(self.written, key)[1]
        present = isinstance(self.written, (list, Mapping)) and key in _members(self.written)
        self.written = self.written[key] if present else None
        return mark if present else None


def _called(group: type[Group]) -> str:
    """Name of a group of options: its key."""
    return {"Spec": "the spec", "RunSpec": "the spec", "ModelSpec": "model"}.get(group.__name__, group.__name__.lower())


def _nowhere(path: str, text: str) -> SpecError:
    return SpecError([Problem(Mark(path), text)])
