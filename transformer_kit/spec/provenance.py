"""Where a value of a spec comes from: a line of a page, a page it builds on, `--set`, or the default of its field."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry import core
from registry.options import Group, Options, plain
from transformer_kit.spec.errors import Mark, Problem, SpecError
from transformer_kit.spec.layers import KEYS
from transformer_kit.spec.read import read, tree_of
from transformer_kit.spec.schema import Layers
from transformer_kit.spec.tree import at, marks_of

LAYERS = ("model", "layers")


@dataclass(frozen=True)
class Provenance:
    """A resolved value, and its origin."""

    path: str
    value: Any
    """As YAML would write it, defaults included."""
    mark: Mark | None
    """Where it was written; None for a default."""
    owner: str
    """Whose field it is."""
    documentation: str

    @property
    def origin(self) -> str:
        """`page`, `extends` (a page it builds on), `set` (the command line) or `default`."""
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
        return known | {k: place[k] for k in ("file", "line", "column", "via")} | {"documentation": self.documentation}


def provenance(spec: str | Path, path: str, sets: Sequence[str] = ()) -> Provenance:
    """What stands at the dotted `path` of a page, and why. Layers go by number, as in `model.layers.0.ffn`, or by
    what the page says, as in `model.layers.block.ffn`.

    Raises SpecError for a wrong page, and for a path that leads nowhere.
    """
    page = read(spec, sets)
    keys = tuple(path.split("."))
    if keys[:2] == LAYERS and len(keys) > 2 and keys[2] in KEYS:
        tree, _, _ = tree_of(spec, sets)
        return _written(tree, path, keys)
    walk = _Walk(page, page._source.tree, path)
    for key in keys:
        walk.step(key)
    return Provenance(path, plain(walk.value), walk.mark, walk.owner, walk.documentation)


def _written(tree: Any, path: str, keys: tuple[str, ...]) -> Provenance:
    """What the page itself says about its layers, before they are laid on each other."""
    mark = None
    for i, key in enumerate(keys):
        here: Any = at(tree, keys[:i]) if i else tree
        known = _members(here)
        real = next((k for k in known if str(k) == key), None)
        if real is None:
            choices = core.suggest(key, [str(k) for k in known])
            raise _nowhere(path, f"the page writes no '{key}' in {'.'.join(map(str, keys[:i]))}{choices}")
        keys = (*keys[:i], real, *keys[i + 1 :])
        mark = marks_of(here, real)[1]
    return Provenance(path, plain(at(tree, keys)), mark, "layers", "")


def _members(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value)
    return list(range(len(value))) if isinstance(value, (list, tuple)) else []


class _Walk:
    """Goes down the objects and the written values side by side, as long as there is something written."""

    def __init__(self, value: Any, written: Any, path: str) -> None:
        self.value = value
        self.written = written
        self.path = path
        self.mark: Mark | None = None
        self.owner = "the page"
        self.documentation = ""

    def step(self, key: str) -> None:
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
            raise _nowhere(self.path, f"no '{key}' in {part or _called(type(group))}{core.suggest(key, names)}")
        self.owner = f"{group.part.family} '{part}'" if part else _called(type(group))
        self.documentation = fields[key].description or ""
        self.value = getattr(group, key)
        self.mark = self._below(key)

    def _member(self, key: str) -> None:
        known = _members(self.value)
        number = int(key) if key.removeprefix("-").isdecimal() else None
        if not isinstance(self.value, Mapping) and number is not None and -len(known) <= number < len(known):
            real: Any = known[number]
        else:
            real = next((k for k in known if str(k) == key), None)
        if real is None:
            there = (
                f"there are {len(known)}, from 0" if not isinstance(self.value, Mapping) else core.suggest(key, known)
            )
            raise _nowhere(self.path, f"no '{key}' here: {there}")
        self.value = self.value[real]
        self.mark = self._below(real)

    def _below(self, key: Any) -> Mark | None:
        """Go down to what is written at `key`, and return its place; None from where only defaults follow."""
        mark = marks_of(self.written, key)[1]
        present = isinstance(self.written, (list, Mapping)) and key in _members(self.written)
        self.written = self.written[key] if present else None
        return mark if present else None


def _called(group: type[Group]) -> str:
    """The word for a group of options: the key that it stands under."""
    return {"Spec": "the page", "RunSpec": "the page", "ModelSpec": "model"}.get(group.__name__, group.__name__.lower())


def _nowhere(path: str, text: str) -> SpecError:
    return SpecError([Problem(Mark(path), text)])
