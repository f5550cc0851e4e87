"""Error messages in terms of the spec: turns the validator's errors into problems with places."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from registry import core
from registry.options import Group, Options, slot_family
from registry.words import kits, likely, meaning
from transformer_kit.spec.errors import Mark, Problem, shown
from transformer_kit.spec.tree import Path, at, find

_FROM = "; `--from DIR` takes that of a trained folder"
_TEXTS = {
    "int_type": "must be a whole number, got {got}",
    "float_type": "must be a number, got {got}",
    "bool_type": "must be true or false, got {got}",
    "string_type": "must be text, got {got}",
    "tuple_type": "must be a list, got {got}",
    "list_type": "must be a list, got {got}",
    "dict_type": "must be a mapping, got {got}",
    "model_type": "must be a mapping, got {got}",
    "model_attributes_type": "must be a mapping, got {got}",
    "greater_than": "must be more than {gt}, got {got}",
    "greater_than_equal": "must be at least {ge}, got {got}",
    "less_than": "must be less than {lt}, got {got}",
    "less_than_equal": "must be at most {le}, got {got}",
    "finite_number": "must be a finite number, got {got}",
    "literal_error": "must be {expected}, got {got}",
    "int_parsing_size": "must be a number of reasonable size, got {got}",
    "int_from_float": "must be a whole number, got {got}",
    "too_short": "must hold at least {min_length}, got {actual_length}",
    "too_long": "must hold at most {max_length}, got {actual_length}",
}


def problems(error: ValidationError, tree: Any, page: type[Group], start: Mark) -> list[Problem]:
    """One problem for each error of the validator in `tree`, which should be a `page`.

    A mistake in one place that affects many layers is one problem.
    """
    found: dict[tuple[Any, ...], Problem] = {}
    for detail in error.errors(include_url=False):
        path, context = detail["loc"], detail.get("ctx", {})
        mark = find(tree, path) or start
        key = (mark, detail["type"], path[-1:], str(context.get("text") or context.get("error")))
        if key not in found:
            found[key] = Problem(mark, _text(detail, tree, page))
    return list(found.values())


def _text(detail: ErrorDetails, tree: Any, page: type[Group]) -> str:
    path, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    if kind in ("extra_forbidden", "invalid_key"):
        return _no_option(page, tree, path)
    if kind == "missing":
        needed = f"needs '{path[-1]}'{_about(owner(page, tree, path[:-1]), str(path[-1]))}"
        return f"{needed}{_FROM}" if path == ("model",) and "train" in page.model_fields else needed
    if "text" in context:
        return str(context["text"])
    if "error" in context:
        return str(context["error"])
    got = shown(detail["input"])
    template = _TEXTS.get(kind)
    return template.format(got=got, **context) if template else f"{detail['msg']}, got {got}"


def _no_option(page: type[Group], tree: Any, path: Path) -> str:
    """`no option 'd_f' in 'gated'; did you mean 'd_ff'?`, or the parts that have the option."""
    key, above = str(path[-1]), path[:-1]
    group = owner(page, tree, above)
    if group is None:
        return f"no key '{key}' here"
    part = getattr(group, "part", None)
    what = f"no key '{key}' here" if part is None else f"no option '{key}' in '{part.name}'"
    whose = [] if part is None else [f"'{o}'" for o in _owners(part.family, part.name, key)]
    whose = whose or _neighbors(page, tree, above, key)
    if whose:
        return f"{what}; it belongs to {', '.join(whose)}"
    fields = list(group.model_fields)
    if not meaning(key, fields):
        inside = within(group, key)
        theirs = ((o, w) for o in kits(key)[1:] if (w := _neighbors(page, tree, above, o)))
        other, theirs_are = next(theirs, ("", []))
        if inside:
            return f"{what}; did you mean '{inside[0]}'?"
        if theirs_are and not likely(key, fields):
            return f"{what}; did you mean '{other}', which belongs to {', '.join(theirs_are)}?"
    return f"{what}{core.suggest(key, fields)}" if fields else f"{what}; it has none"


def within(group: type[Group], key: str, above: tuple[type[Group], ...] = ()) -> list[str]:
    """Paths, through nested groups of `group`, to a field that `key` may mean: `model.d_model`."""
    found = []
    for name, field in group.model_fields.items():
        inner = None if slot_family(field) else group_of(field.annotation)
        if inner is not None and inner not in (group, *above):  # a group may contain its own type
            words = [w for w in kits(key) if w.partition(".")[0] in inner.model_fields]
            found += [f"{name}.{w}" for w in words] or [
                f"{name}.{path}" for path in within(inner, key, (group, *above))
            ]
    return found


def _neighbors(page: type[Group], tree: Any, path: Path, key: str) -> list[str]:
    """Parts at or next to `path` that have an option `key`; else the nearest enclosing one."""
    found: list[str] = []
    for place in dict.fromkeys((path, path[:-1])):
        group, inside = owner(page, tree, place), at(tree, place)
        for name, field in group.model_fields.items() if group is not None else ():
            family = slot_family(field)
            options = _part_options(family, at(inside, (name,))) if family else None
            if options is not None and key in options.model_fields:
                found.append(f"{name} '{options.part.name}'")
    if found:
        return list(dict.fromkeys(found))
    above = (path[:i] for i in range(len(path) - 1, -1, -1))
    around = ((p, g) for p in above if (g := owner(page, tree, p)) is not None and key in g.model_fields)
    return [_place(p, g) for p, g in around][:1]


def _place(path: Path, group: type[Group]) -> str:
    part = getattr(group, "part", None)
    if part is not None:
        return f"the {part.family} '{part.name}' around it"
    return f"'{path[-1]}'" if path else "the spec itself"


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


def owner(page: type[Group], tree: Any, path: Path) -> type[Group] | None:
    """The class of options that has the fields at `path`."""
    group: type[Group] | None = page
    for i, key in enumerate(path):
        if isinstance(key, int) or group is None:
            continue  # a list: its items belong to the field before it
        field = group.model_fields.get(key)
        if field is None:
            return None
        end = next((j for j in range(i + 1, len(path)) if not isinstance(path[j], int)), len(path))
        family = slot_family(field)
        group = _part_options(family, at(tree, path[:end])) if family else group_of(field.annotation)
    return group


def _part_options(family: str, written: Any) -> type[Options] | None:
    name = written.get("type") if isinstance(written, Mapping) else written
    if not isinstance(name, str):
        return None
    try:
        options: type[Options] = core.get(family, name).Options
    except core.RegistryError:
        return None
    return options


def group_of(annotation: Any) -> type[Group] | None:
    """The group of options in a field of this type, if any."""
    if isinstance(annotation, type) and issubclass(annotation, Group):
        return annotation
    return next((g for a in get_args(annotation) if (g := group_of(a)) is not None), None)
