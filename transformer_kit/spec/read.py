"""From YAML, or a mapping, to a checked `Spec` or `RunSpec`.

    read("configs/models/tutorial.yaml")     a file, or the name of a shipped spec
    read(path, sets=["model.d_model=64"])    with single values replaced

The stages: find and parse the files, merge each onto those it builds on, apply `--set`, expand the layers, validate.
All faults are raised at once, as one SpecError.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformer_kit.spec import files, yaml
from transformer_kit.spec.check import checked
from transformer_kit.spec.errors import Mark, Problem, SpecError, shown
from transformer_kit.spec.schema import ModelSpec, RunSpec, Spec
from transformer_kit.spec.tree import MAX_DEPTH, Items, Table, merge, named, remarked, written

ALONE = "describes a model, not a run; `kit new run NAME` starts a spec that does"
RUN_KEYS = frozenset(RunSpec.model_fields) - frozenset(Spec.model_fields)


def page_of(spec: str | Path | Mapping[str, Any] | Spec | ModelSpec) -> Spec:
    """The spec from a Python argument: like `read`; spec objects pass, and a bare architecture becomes a spec.

    Raises SpecError.
    """
    if isinstance(spec, Spec):
        return spec
    if isinstance(spec, ModelSpec):
        return Spec(model=spec)
    bare = isinstance(spec, Mapping) and "model" not in spec and set(ModelSpec.model_fields) & set(spec)
    return read({"model": spec} if bare else spec)


def read(spec: str | Path | Mapping[str, Any], sets: Sequence[str] = ()) -> Spec:
    """Read a spec from a file, by name or from a mapping; a RunSpec if it says how to train. Raises SpecError."""
    tree, start, notes = tree_of(spec, sets)
    kind = RunSpec if RUN_KEYS & set(tree) else Spec
    return checked(tree, kind, start, notes)


def read_run(
    spec: str | Path | Mapping[str, Any], sets: Sequence[str] = (), trained: Path | Mapping[str, Any] | None = None
) -> RunSpec:
    """Read a run spec from a file or by name; without a model of its own, it takes that of the spec `trained`.

    Raises SpecError for a spec without training.
    """
    tree, start, notes = tree_of(spec, sets, trained)
    if "model" in tree and not RUN_KEYS & set(tree):
        raise SpecError([Problem(start, ALONE)])
    return checked(tree, RunSpec, start, notes)


def tree_of(
    spec: str | Path | Mapping[str, Any],
    sets: Sequence[str] = (),
    trained: Path | Mapping[str, Any] | None = None,
) -> tuple[Table, Mark, list[str]]:
    """The spec's merged values with `sets` applied, the mark of its start, and notes. Raises SpecError.

    A missing model, with its plugins, is taken from the spec `trained`.
    """
    notes: list[str] = []
    if isinstance(sets, (str, Mapping)):
        raise SpecError([Problem(Mark("sets"), f'must be a list such as ["model.d_model=64"], got {shown(sets)}')])
    path, tree, start = _loaded(spec, notes)
    if trained is not None and "model" not in tree:
        _, known, _ = _loaded(trained, notes)
        for key in {"model", "plugins"} & known.keys() - tree.keys():
            tree.take(key, known, known[key])
    wrong: list[Problem] = []
    for assignment in sets:
        try:
            assign(tree, assignment, notes)
            files.settle(tree, path, notes)
        except SpecError as error:
            wrong += error.problems
    if wrong:
        raise SpecError(wrong)
    return tree, start, notes


def _loaded(spec: Any, notes: list[str]) -> tuple[Path, Table, Mark]:
    """The path that relative names start from, the merged values of a spec, and the mark of its start."""
    if isinstance(spec, Mapping):
        start = Mark("spec")
        return Path(start.file), files.built(written(spec, start.file), Path(start.file), notes), start
    if not isinstance(spec, (str, Path)):
        text = f"must be a file, the name of a spec of the kit, a mapping or a spec object, got {shown(spec)}"
        raise SpecError([Problem(Mark("spec"), text)])
    path = files.locate(spec)
    return path, *files.load(path, notes)


def run_of(spec: str | Path | Mapping[str, Any] | Spec) -> RunSpec:
    """The run spec from a Python argument, like `page_of`. Raises SpecError for a model alone."""
    if isinstance(spec, RunSpec):
        return spec
    if isinstance(spec, Spec):
        raise SpecError([Problem(Mark("spec"), ALONE)])
    return read_run(spec)


def assign(tree: Table, assignment: str, notes: list[str] | None = None) -> None:
    """Apply `path.to.key=value` in place, with the value in YAML, by the rule of `merge`. Raises SpecError.

    Options lost with a replaced part are appended to `notes`.
    """
    path, equals, text = assignment.partition("=")
    path = path.strip()
    mark = Mark("--set", 0, 0, path, f"--set {assignment:.200}")
    keys = path.split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise _refusal(mark, "must be PATH=VALUE, such as model.d_model=64")
    value = _value(text, mark)
    here: Any = tree
    for i, key in enumerate(keys[:-1]):
        here = _step(here, _key(here, key, mark), ".".join(keys[: i + 1]), mark)
    last = _key(here, keys[-1], mark)
    over = Table()
    over.put(last, value, mark, mark)
    if isinstance(here, list):
        here[last] = merge(_pair(here, last), over, notes)[last]
        if isinstance(here, Items) and here.values_at:
            here.values_at[last] = mark
    else:
        old = _pair(here, last) if last in here else Table()
        here.put(last, merge(old, over, notes, ".".join(keys[:-1]))[last], mark, mark)


def _value(text: str, mark: Mark) -> Any:
    """The value of an assignment, with the assignment as place of each value in it."""
    try:
        value, _ = yaml.parse(text, mark.file)
    except SpecError as error:
        raise SpecError([Problem(mark, problem.text) for problem in error.problems]) from None
    return remarked(value, lambda inner: replace(mark, path=f"{mark.path}.{inner.path}"))


def _pair(source: Any, key: Any) -> Table:
    table = Table()
    table.take(key, source, source[key])
    return table


def _step(here: Any, key: Any, path: str, mark: Mark) -> Any:
    """The value at `key`, created where it is missing."""
    if isinstance(here, Table) and key not in here:
        here.put(key, Table(), replace(mark, path=path), replace(mark, path=path))
    if isinstance(here[key], str):  # a part by its bare name: its options need a mapping
        here[key] = named(here, key)
    if not isinstance(here[key], (dict, list)):
        raise _refusal(mark, f"'{path}' has nothing inside, it is {shown(here[key])}")
    return here[key]


def _key(here: Any, key: str, mark: Mark) -> Any:
    number = int(key) if re.fullmatch(r"-?[0-9]{1,9}", key) else None
    if isinstance(here, list):
        if number is None or not -len(here) <= number < len(here):
            raise _refusal(mark, f"'{key:.60}' must be the number of an item, from 0 to {len(here) - 1}")
        return number
    return key if number is None or key in here else number


def _refusal(mark: Mark, text: str) -> SpecError:
    return SpecError([Problem(mark, text)])
