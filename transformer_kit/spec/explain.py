"""Says what is wrong in the words of the spec: turns what the validator found into problems with places."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from registry import core
from registry.options import Group, slot_family
from transformer_kit.spec.errors import Mark, Problem
from transformer_kit.spec.tree import at, find

_TEXTS = {
    "int_type": "must be a whole number, got {got}",
    "float_type": "must be a number, got {got}",
    "bool_type": "must be true or false, got {got}",
    "string_type": "must be text, got {got}",
    "tuple_type": "must be a list, got {got}",
    "model_type": "must be a mapping, got {got}",
    "model_attributes_type": "must be a mapping, got {got}",
    "greater_than": "must be more than {gt}, got {got}",
    "greater_than_equal": "must be at least {ge}, got {got}",
    "less_than": "must be less than {lt}, got {got}",
    "less_than_equal": "must be at most {le}, got {got}",
    "finite_number": "must be a finite number, got {got}",
    "literal_error": "must be {expected}, got {got}",
    "int_parsing_size": "must be at most 1000000000, got {got}",
    "too_short": "must hold at least {min_length}, got {actual_length}",
    "too_long": "must hold at most {max_length}, got {actual_length}",
}


def problems(error: ValidationError, tree: Any, page: type[Group], start: Mark) -> list[Problem]:
    """One problem for each thing that the validator found wrong in `tree`, which should have been a `page`."""
    return [_problem(detail, tree, page, start) for detail in error.errors()]


def _problem(detail: ErrorDetails, tree: Any, page: type[Group], start: Mark) -> Problem:
    path = detail["loc"]
    mark = find(tree, path) or start
    kind = detail["type"]
    if kind == "extra_forbidden":
        return Problem(mark, no_option(str(path[-1]), owner(page, tree, path[:-1]), at(tree, path[:-1])))
    if kind == "missing":
        return Problem(mark, f"needs '{path[-1]}'{_about(owner(page, tree, path[:-1]), str(path[-1]))}")
    return Problem(mark, _text(detail))


def _text(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if "text" in context:
        return str(context["text"])
    if "error" in context:
        return str(context["error"])
    got = repr(detail["input"])
    got = {"None": "nothing", "True": "true", "False": "false"}.get(got, got)
    got = got if len(got) <= 60 else f"{got[:57]}..."
    template = _TEXTS.get(detail["type"])
    return template.format(got=got, **context) if template else f"{detail['msg']}, got {got}"


def no_option(key: str, group: type[Group] | None, written: Any) -> str:
    """`no option 'd_f' in 'gated'; did you mean 'd_ff'?`, or whose option it is."""
    if group is None:
        return f"no key '{key}' here"
    part = getattr(group, "part", None)
    fields = list(group.model_fields)
    inside = f"'{part.name}'" if part is not None else group.__name__.lower()
    others = [] if part is None else _owners(part.family, part.name, key)
    if others:
        return f"no option '{key}' in {inside}; it belongs to {', '.join(repr(o) for o in others)}"
    free = [f for f in fields if not (isinstance(written, Mapping) and f in written)]
    return f"no option '{key}' in {inside}{core.suggest(key, free) if free else '; it has none'}"


def _owners(family: str, name: str, key: str) -> list[str]:
    found = []
    for other in core.names(family):
        try:
            if other != name and key in core.get(family, other).Options.model_fields:
                found.append(other)
        except core.RegistryError:
            continue
    return found


def _about(group: type[Group] | None, key: str) -> str:
    field = group.model_fields.get(key) if group is not None else None
    return f": {field.description[0].lower()}{field.description[1:].rstrip('.')}" if field and field.description else ""


def owner(page: type[Group], tree: Any, path: tuple[Any, ...]) -> type[Group] | None:
    """The class of options whose fields may be written at `path`."""
    group: type[Group] | None = page
    for i, key in enumerate(path):
        if isinstance(key, int) or group is None:
            continue  # a list: its items belong to the field that was named before
        field = group.model_fields.get(key)
        if field is None:
            return None
        end = next((j for j in range(i + 1, len(path)) if not isinstance(path[j], int)), len(path))
        family = slot_family(field)
        group = _part_options(family, at(tree, path[:end])) if family else _group(field.annotation)
    return group


def _part_options(family: str, written: Any) -> type[Group] | None:
    name = written.get("type") if isinstance(written, Mapping) else written
    try:
        return core.get(family, str(name)).Options
    except core.RegistryError:
        return None


def _group(annotation: Any) -> type[Group] | None:
    if isinstance(annotation, type) and issubclass(annotation, Group):
        return annotation
    return next((g for a in get_args(annotation) if (g := _group(a)) is not None), None)
