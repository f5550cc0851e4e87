"""Checks of a part's options and documentation, for every family."""

import ast
import inspect
import json
import sys
from typing import Any

import hypothesis
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from registry.options import Options, Slot, plain
from transformer_kit.testing.checks import ALL, check
from transformer_kit.testing.strategies import options_for
from transformer_kit.testing.values import leaves, minimal, placed, variants

UNKNOWN = "no_such_option"


@check(ALL)
def options_round_trip(part: Any) -> None:
    """Options in written form, through JSON too, read back as equal options of the same part."""
    slot = Slot(part.family)

    @hypothesis.settings(max_examples=20, deadline=None, database=None, derandomize=True)
    @hypothesis.given(options_for(part))
    def drawn(options: Options) -> None:
        page = plain(options)
        assert slot.read(page) == options, f"{page} reads back as {slot.read(page)}"
        assert slot.read(json.loads(json.dumps(page))) == options, f"{page} does not survive JSON"

    drawn()
    for what, options in variants(part):
        assert slot.read(plain(options)) == options, f"{what}: {plain(options)} reads back differently"
    assert slot.read(minimal(part)).part is part, f"its Options configure {slot.read(minimal(part)).part}"


@check(ALL)
def unknown_option_refused(part: Any) -> None:
    """An unknown option is an error, in nested groups as well."""
    page = plain(minimal(part))
    groups: list[dict[str, Any]] = [page]
    while groups:
        here = groups.pop()
        groups += [v for v in here.values() if isinstance(v, dict)]
        here[UNKNOWN] = 1
        assert _refused(part, page), f"{UNKNOWN}: 1 was swallowed in {page}"
        del here[UNKNOWN]


@check(ALL)
def wrong_types_refused(part: Any) -> None:
    """Strings and booleans are not accepted as numbers, nor fractions as whole numbers."""
    for path, field in leaves(part.Options, optional=True):
        for wrong in _wrong(field):
            assert _refused(part, placed(minimal(part), path, wrong)), f"{'.'.join(path)}: {wrong!r} was accepted"


@check(ALL)
def options_frozen(part: Any) -> None:
    """Options are frozen."""
    options = minimal(part)
    for name in part.Options.model_fields:
        try:
            setattr(options, name, getattr(options, name))
        except ValidationError:
            continue
        raise AssertionError(f"{name} can be assigned to")


@check(ALL)
def documented(part: Any) -> None:
    """Module, class and each option have a docstring; the module's begins with one full sentence."""
    first = (sys.modules[part.__module__].__doc__ or "").strip().split("\n\n")[0]
    assert first.endswith("."), f"the module's first paragraph must be a sentence (title, authors, year), got {first!r}"
    tree = ast.parse(inspect.getsource(sys.modules[part.__module__]))
    own = next((n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == part.__name__), None)
    assert own is None or ast.get_docstring(own), f"class {part.__name__} has no docstring"
    for path, field in leaves(part.Options, optional=True):
        assert field.description, f"option {'.'.join(path)} has no docstring under it"


def _refused(part: Any, page: dict[str, Any]) -> bool:
    try:
        part.Options.model_validate({k: v for k, v in page.items() if k != "type"})
    except ValidationError:
        return True
    return False


def _wrong(field: FieldInfo) -> list[Any]:
    """Values that a field of numbers or booleans must refuse."""
    text = str(field.annotation)
    kinds = [k for k in ("int", "float", "bool", "str") if k in text]
    if kinds == ["int"]:
        return ["2", 2.5, True, float("nan")]
    if kinds == ["float"]:
        return ["0.5", True, float("nan"), float("inf")]
    return ["yes", 1] if kinds == ["bool"] else []
