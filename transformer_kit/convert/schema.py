"""Schema of a declaration's file; each error has its location in the file.

A declaration is checked piece by piece: the page itself, each case under `when`, each rule of tensors and of `derived`,
each variable. So a nested error is reported like one at the top, and all errors are reported at once.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from registry.core import suggest
from registry.options import Group
from transformer_kit.convert.layout import ACROSS, OPERATIONS
from transformer_kit.convert.template import FUNCTIONS
from transformer_kit.spec import explain
from transformer_kit.spec.errors import Mark, Problem, SpecError, shown
from transformer_kit.spec.schema import ModelSpec
from transformer_kit.spec.tree import find

_PLACEHOLDER = re.compile(r"\{(?!i\}|e\})[^}]*\}?")
_FRAGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KINDS = ("first", "every", "at", "from", "ones", "runs", "all")


def _wrong(text: str) -> PydanticCustomError:
    return PydanticCustomError("declaration", "{text}", {"text": text})


def _name(value: str) -> str:
    if found := _PLACEHOLDER.search(value):
        raise _wrong(f"{found[0]} is no placeholder; {{i}} is the layer, {{e}} the expert")
    return value


def _operation(value: Any) -> Any:
    counted = isinstance(value, Mapping)
    if not isinstance(value, str) and not (counted and len(value) == 1):
        raise _wrong(f"must be an operation, or a mapping from one operation to its number, got {shown(value)}")
    name = next(iter(value)) if counted else value
    takes = ACROSS | {known: operation.counted for known, operation in OPERATIONS.items()}
    if name not in takes:
        raise _wrong(f"no operation '{name}'{suggest(str(name), list(takes))}")
    number = value[name] if counted else None
    if takes[name] != counted or (counted and not isinstance(number, str) and not (type(number) is int and number > 0)):
        how = "takes a number from 1 on, the key of one, or each" if takes[name] else "takes no number"
        raise _wrong(f"operation '{name}' {how}, got {shown(number)}")
    return value


def _function(value: str) -> str:
    if value not in FUNCTIONS:
        raise _wrong(f"no function '{value}'{suggest(value, list(FUNCTIONS))}")
    return value


def _fragment(value: str) -> str:
    if not _FRAGMENT.fullmatch(value):
        raise _wrong(f"must be the name of a fragment, of letters, digits, '-' and '_', got {shown(value)}")
    return value


Name = Annotated[str, AfterValidator(_name)]
Template = dict[str, Any]
Cases = dict[str, Template]


class Rule(Group):
    """Mapping from some checkpoint tensors to some kit tensors."""

    theirs: Annotated[list[Name], MinLen(1)]
    """Names of checkpoint tensors, with {i} for the layer and {e} for the expert."""
    ours: Annotated[list[Name], MinLen(1)]
    """Names of kit tensors, with the same placeholders."""
    ops: list[Annotated[Any, AfterValidator(_operation)]] = []
    """Operations of `layout`, applied from `theirs` to `ours`."""


class Change(Group):
    """Changes to the rule of an included fragment."""

    theirs: Annotated[list[Name], MinLen(1)] | None = None
    ours: Annotated[list[Name], MinLen(1)] | None = None
    ops: list[Annotated[Any, AfterValidator(_operation)]] = []


class Case(Group):
    """Additions for one value of a key."""

    model: Template = {}
    block: Template = {}
    each: dict[str, Cases] = {}
    tensors: dict[Name, Any] = {}


class Variable(Group):
    """A value that comes from a config key."""

    key: str = Field(alias="$")
    map: Template | None = None
    fn: Annotated[str, AfterValidator(_function)] | None = None
    times: str | None = None
    power: Annotated[int | float, Ge(-8), Le(8)] = 1
    unless: str | Template | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [way for way in ("map", "times", "unless") if getattr(self, way) is not None]
        if len(ways) > 1 or (self.map is not None and self.fn is not None):
            raise ValueError(f"a variable must have one of map, times and unless, and fn never with map, got {ways}")
        if self.power != 1 and self.times is None:
            raise ValueError("power needs times; give times or remove power")
        return self


class Derived(Group):
    """A per-layer list, computed from keys."""

    first: Any = None
    every: Any = None
    offset: Any = None
    at: Any = None
    start: Any = Field(default=None, alias="from")
    to: Any = None
    ones: Any = None
    runs: Any = None
    all: Any = None
    then: Any = None
    other: Any = Field(default=None, alias="else")
    given: Any = None
    next: "Derived | None" = Field(default=None, alias="or")
    private: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [k for k in _KINDS if getattr(self, "start" if k == "from" else k) is not None]
        if len(kinds) != 1:
            raise ValueError(f"must have one of {', '.join(_KINDS)}, got {', '.join(kinds) or 'none'}")
        if kinds[0] not in ("runs", "all") and (self.then is None or self.other is None):
            raise ValueError(f"{kinds[0]} needs then and else")
        return self


class Rotary(Group):
    """How the family's class reads rotary settings."""

    kinds: list[str] = []
    """Kinds of layers with their own settings in `rope_parameters`; empty if all layers share them."""
    laid_on: list[str] = []
    """Kinds whose settings `rope_scaling` overrides key by key. Without kinds it replaces `rope_parameters`."""
    new_alone: bool = False
    """Whether the class ignores `rope_scaling`."""
    absent: Template = {}
    """Value of `rope_parameters` when they are null or absent."""


class Page(Group):
    """A family, or a fragment of one."""

    kit: Literal[1] = 1
    """Version of the language of declarations."""
    names: Annotated[list[str], MinLen(1)] | None = None
    """Values of `model_type`."""
    classes: list[str] = []
    """Values of `architectures`."""
    rank: int = 100
    """Order in which export tries families; plain ones first."""
    attention: str = "eager"
    """The `transformers` attention implementation to compare an export with; some classes get one of them wrong."""
    include: Annotated[list[Annotated[str, AfterValidator(_fragment)]], MaxLen(16)] = []
    """Included fragments, which this file extends."""
    prefix: str = ""
    """Prefix of tensor names, absent in files of a model saved without its head."""
    count: str = "num_hidden_layers"
    """The key that gives the number of layers."""
    nested: list[str] = []
    """Keys with a mapping, whose entries are written `key.inner` here."""
    overrides: str = ""
    """The key of a mapping from a layer's index to key values of that layer."""
    defaults: dict[str, Any] = {}
    """Values of absent keys."""
    rope: Rotary = Rotary()
    """How rotary settings are read. Their flat keys begin with `rope.`."""
    derived: dict[str, Template] = {}
    """Per-layer lists, computed from keys."""
    last: dict[str, str] = {}
    """The last layer's word in a list, whatever the list says."""
    model: Template = {}
    """Template of the spec's `model`, without its layers."""
    block: Template = {}
    """Template of every layer."""
    when: dict[str, Cases] = {}
    """Additions to `model`, `block` and `tensors`, by the value of a key."""
    each: dict[str, Cases] = {}
    """Additions to single layers, by the values of a list."""
    only: dict[str, list[Any]] = {}
    """Keys that must have one of these values."""
    never: list[Template] = []
    """Combinations of values that the class cannot compute."""
    needs: list[str] = []
    """Required keys, whose default in the class is never meant."""
    inert: list[str] = []
    """Keys that do not change logits."""
    write: dict[str, Any] = {}
    """Keys that export writes where nothing else gives them a value."""
    tensors: dict[Name, Any] = {}
    """Kit tensors by checkpoint tensors: a name for a name, or a labeled rule. null removes an included rule."""
    constants: dict[str, float] = {}
    """Checkpoint tensors with one constant value, which the kit implies; {i} is the layer."""
    ignore: list[str] = []
    """Patterns of checkpoint tensors that are not weights, such as stored masks."""


def check(page: dict[str, Any], start: Mark) -> None:
    """Raise SpecError with everything that is wrong with a declaration or a fragment."""
    found: list[Problem] = []
    for piece, kind, path in _pieces(page):
        mark = find(page, path) or replace(start, path=".".join(map(str, path)))
        if not isinstance(piece, Mapping):
            found.append(Problem(mark, f"must be a mapping, got {shown(piece)}"))
            continue
        try:
            kind.model_validate(piece)
        except ValidationError as error:
            found += explain.problems(error, piece, kind, mark)
    found += [Problem(find(page, path) or start, text) for path, text in _unknown(page)]
    if found:
        raise SpecError(found)


def _pieces(page: dict[str, Any]) -> Iterator[tuple[Any, type[Group], tuple[Any, ...]]]:
    """Yield each piece to check, with its schema and its path."""
    yield page, Page, ()
    for path, case in _cases(page):
        yield case, Case, path
    for path, holder in [((), page), *_cases(page)]:
        kind = Rule if path or not page.get("include") else Change
        yield from ((rule, kind, (*path, *at)) for at, rule in _inside(holder, "tensors") if not _is_name(rule))
    yield from ((rule, Derived, path) for path, rule in _inside(page, "derived"))
    for key in ("defaults", "derived", "model", "block", "when", "each", "write"):
        yield from ((variable, Variable, path) for path, variable in _variables(page.get(key), (key,)))


def _cases(page: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any]]:
    return [((*path, *at), case) for path, cases in _inside(page, "when") for at, case in _members(cases)]


def _inside(holder: Any, key: str) -> list[tuple[tuple[Any, ...], Any]]:
    """Members of the value under a key, with their paths."""
    inner = holder.get(key) if isinstance(holder, Mapping) else None
    return [((key, *at), value) for at, value in _members(inner)]


def _members(value: Any) -> list[tuple[tuple[Any, ...], Any]]:
    return [((key,), inner) for key, inner in value.items()] if isinstance(value, Mapping) else []


def _is_name(rule: Any) -> bool:
    return rule is None or (isinstance(rule, str) and _PLACEHOLDER.search(rule) is None)


def _variables(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, Mapping):
        if "$" in value:
            yield path, value
        for key, inner in value.items():
            yield from _variables(inner, (*path, key))


def _unknown(page: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Unknown keys in templates of `model`."""
    known = [name for name in ModelSpec.model_fields if name != "layers"]
    for path, holder in [((), page), *_cases(page)]:
        for at, _ in _inside(holder, "model"):
            if at[-1] not in known:
                yield (*path, *at), f"no key '{at[-1]}' in a model{suggest(str(at[-1]), known)}"
