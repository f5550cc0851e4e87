"""Errors of a spec from a config.json, reported with the config's keys."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.page import chosen_case, flat, spoken, templates, values_of
from transformer_kit.convert.template import is_variable, keys_of
from transformer_kit.spec.errors import Problem, SpecError
from transformer_kit.spec.tree import at

_BLOCK = re.compile(r"model\.layers\.(block|blocks\.\d+|kinds\.[^.]+|at\.[^.]+)(\.|$)")

_WORD = re.compile(r"[a-z_]+")


@contextmanager
def of_config(config: Mapping[str, Any], declaration: Declaration) -> Iterator[None]:
    """Context that turns a SpecError into a ConvertError with the responsible config keys and their values."""
    try:
        yield
    except SpecError as error:
        told = [_told(problem, config, declaration) for problem in error.problems]
        raise ConvertError("config.json", list(dict.fromkeys(told))) from error


def _told(problem: Problem, config: Mapping[str, Any], declaration: Declaration) -> str:
    given, values = flat(config, declaration), values_of(config, declaration)
    in_block = _BLOCK.match(problem.mark.path)
    path = problem.mark.path[in_block.end() :] if in_block else problem.mark.path.removeprefix("model").lstrip(".")
    model, block, each = templates(declaration, values, [])
    blocks = [block, *(template for cases in each.values() for template in cases.values())]
    chosen = {
        key: chosen_case(key, values, declaration).get("block" if in_block else "model", {}) for key in declaration.when
    }
    found = [key for page in (model, *blocks) for key in _named(page, set(_WORD.findall(problem.text)))]
    if path == "layers":  # a problem of all layers
        found.append(declaration.count)
    else:
        found += _behind(tuple(path.split(".")) if path else (), blocks if in_block else [model], chosen)
    keys = dict.fromkeys(_written(key, given, declaration) for key in found)
    if problem.text.startswith("needs ") and (open_ := [key for key in keys if values.get(key) is None]):
        return spoken(f"{open_[0]} is not given: {path}: {problem.text}", config, declaration)
    said = ", ".join(f"{key}: {values[key]!r:.60}" for key in keys if values.get(key) is not None)
    return spoken(": ".join(part for part in (said, path, problem.text) if part), config, declaration)


def _behind(path: tuple[str, ...], pages: list[Any], chosen: Mapping[str, Any]) -> list[str]:
    """Keys that select or give the value at `path`; if there are none, those of the nearest parent."""
    for length in range(len(path), -1, -1):
        place = path[:length]
        cases = [key for key, template in chosen.items() if place and at(template, place)]
        keys = [key for page in pages for key in keys_of(at(page, place))]
        if cases or keys:
            return [*cases, *keys]
    return []


def _named(template: Any, words: set[str]) -> Iterator[str]:
    """Keys that give the options in an error message."""
    if isinstance(template, Mapping) and not is_variable(template):
        for option, inner in template.items():
            yield from keys_of(inner) if option in words and is_variable(inner) else _named(inner, words)


def _written(key: str, given: Mapping[str, Any], declaration: Declaration) -> str:
    """The key itself, or the key of its default where the config lacks it."""
    seen = {key}
    while key not in given and is_variable(default := declaration.defaults.get(key)):
        key = next(keys_of(default))
        if key in seen:  # defaults that refer to each other
            break
        seen.add(key)
    return key
