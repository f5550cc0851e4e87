"""Why a family cannot represent a model: the first difference, and the line of the spec that causes it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.template import unlike
from transformer_kit.model.model import Model
from transformer_kit.model.signature import differences
from transformer_kit.spec.errors import Mark, Problem
from transformer_kit.spec.schema import Spec
from transformer_kit.spec.tree import at

SHOWN = 2
"""Number of families in an error message."""
_NUMBER = re.compile(r"\.\d+\.")


@dataclass(frozen=True)
class Miss:
    """A family that does not represent the model."""

    family: str
    where: str
    """Dotted path in the model or in its spec."""
    text: str
    distance: tuple[bool, int]
    """Whether no config of the family comes near, and the number of differences of the nearest one."""


def differing(ours: Model, theirs: Model, declaration: Declaration) -> Miss | None:
    """The difference from a model of the family, or None. A difference in every layer counts once."""
    found = differences(ours, theirs)
    if not found:
        return None
    where, text = next(iter(found.items()))
    return Miss(declaration.names[0], where, text, (False, len({_NUMBER.sub(".", name) for name in found})))


def inexpressible(page: Mapping[str, Any], declaration: Declaration, error: Exception) -> Miss:
    """The part of the spec that no config of the family can represent, or the error from trying."""
    model = page["model"]
    found = unlike(declaration.model, model, "model")
    for i, block in enumerate(model["layers"]["blocks"]):
        found += unlike(declaration.block, block, f"model.layers.blocks.{i}")
    where, text = found[0] if found else ("", f"{str(error).splitlines()[0]:.120}")
    return Miss(declaration.names[0], where, text, (True, len(found)))


def refusal(what: str, misses: list[Miss], spec: Spec) -> ConvertError:
    """The error with `what` and the nearest families, each with its location in the spec's file."""
    nearest = sorted(misses, key=lambda miss: miss.distance)[:SHOWN]
    found = [Problem(_mark(miss.where.split("."), spec), f"{miss.family}: {miss.text}") for miss in nearest]
    if not all(problem.mark.line for problem in found):
        return ConvertError("export", [what, *(problem.text for problem in found)])
    lines = [f"{problem.mark}: {problem.text}" for problem in found]
    return ConvertError("export", [what, *lines], [Problem(Mark(found[0].mark.file), what), *found])


def _mark(names: list[str], spec: Spec) -> Mark:
    """Location in the spec of a path in the model."""
    if spec._source is None:
        return Mark("")
    tree = spec._source.tree
    path: list[Any] = [int(name) if name.isdigit() else name for name in names if name != "model"]
    if path[:1] == ["layers"]:
        path = ["layers", *(path[1:] if path[1:2] == ["blocks"] else ["blocks", *path[1:]])]
        if len(path) > 3 and "norm" in str(path[3]) and at(tree, ("model", *path[:4])) is None:
            path = ["norm", *path[4:]]  # the default of the blocks' norms
    mark: Mark = spec._source.mark(_written(tree, ["model", *path]))
    return mark


def _written(tree: Any, path: list[Any]) -> tuple[Any, ...]:
    """The path as the spec has it; options may be nested one level deeper than in the module."""
    here: list[Any] = []
    for key in path:
        inside = at(tree, tuple(here))
        groups = (
            [k for k, v in inside.items() if isinstance(v, Mapping) and key in v] if isinstance(inside, Mapping) else []
        )
        here += [groups[0], key] if groups and key not in inside else [key]
    return tuple(here)
