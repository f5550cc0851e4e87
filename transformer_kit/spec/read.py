"""From a page of YAML, or a mapping, to a checked `Spec` or `RunSpec`.

    read("configs/models/tutorial.yaml")     a file, or the name of a spec that comes with the kit
    read(path, sets=["model.d_model=64"])    with single values replaced

The stages: find and parse the files, lay each on what it builds on, apply `--set`, expand the layers, validate.
Everything wrong is raised at once, as one SpecError.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from registry.core import RegistryError
from transformer_kit.spec import explain, files, yaml
from transformer_kit.spec.errors import Mark, Problem, SpecError
from transformer_kit.spec.layers import Wrong, blocks_of, marked
from transformer_kit.spec.schema import VERSION, RunSpec, Spec
from transformer_kit.spec.tree import Items, Table, find

S = TypeVar("S", bound=Spec)

RUN_KEYS = frozenset(RunSpec.model_fields) - frozenset(Spec.model_fields)


@dataclass
class Source:
    """Where a spec comes from: its values with their places, layers expanded, and what reading had to say."""

    tree: Any
    start: Mark
    notes: list[str] = field(default_factory=list)

    def mark(self, path: tuple[Any, ...]) -> Mark:
        """Place of the value at `path`, or of the nearest thing around it."""
        return find(self.tree, path) or self.start


def read(spec: str | Path, sets: Sequence[str] = ()) -> Spec:
    """The spec in a file, or of a name; a RunSpec when the page says how to train. Raises SpecError."""
    tree, start, notes = tree_of(spec, sets)
    kind = RunSpec if RUN_KEYS & set(tree) else Spec
    return checked(tree, kind, start, notes)


def read_run(spec: str | Path, sets: Sequence[str] = ()) -> RunSpec:
    """The run spec in a file, or of a name. Raises SpecError when the page holds a model only."""
    tree, start, notes = tree_of(spec, sets)
    return checked(tree, RunSpec, start, notes)


def tree_of(spec: str | Path, sets: Sequence[str] = ()) -> tuple[Table, Mark, list[str]]:
    """The page's values with all it builds on and `sets` applied, its start, and notes. Raises SpecError."""
    path = files.locate(spec)
    notes: list[str] = []
    tree, start = files.load(path, notes)
    for assignment in sets:
        assign(tree, assignment)
    return tree, Mark(str(path), start.line, start.column), notes


def from_mapping(value: dict[str, Any], kind: type[S]) -> S:
    """The spec that a mapping describes. Raises SpecError."""
    if not isinstance(value, dict):
        raise SpecError([Problem(Mark("spec"), f"must be a mapping of keys to values, got {value!r:.60}")])
    return checked(value, kind, Mark("spec"), [])


def checked(tree: Mapping[str, Any], kind: type[S], start: Mark, notes: list[str]) -> S:
    """Validate a merged tree. Raises SpecError with everything that is wrong."""
    if "kit" in tree and tree["kit"] != VERSION:
        text = f"written in version {tree['kit']!r} of the spec language; this kit reads version {VERSION}"
        raise SpecError([Problem(find(tree, ("kit",)) or start, text)])
    wrong: list[Problem] = []
    expanded = _expand(tree, wrong, start, notes)
    try:
        spec = kind.model_validate(expanded)
    except ValidationError as error:
        raise SpecError(_merge_problems(wrong, explain.problems(error, expanded, kind, start))) from None
    except RegistryError as error:
        raise SpecError([*wrong, Problem(find(tree, ("plugins",)) or start, str(error))]) from None
    if wrong:
        raise SpecError(wrong)
    object.__setattr__(spec, "_source", Source(expanded, start, notes))
    return spec


def _merge_problems(wrong: list[Problem], found: list[Problem]) -> list[Problem]:
    """All problems, in the order of the page."""
    return sorted(wrong + found, key=lambda p: (p.mark.file, p.mark.line, p.mark.column))


def _expand(tree: Mapping[str, Any], wrong: list[Problem], start: Mark, notes: list[str]) -> Any:
    """The tree with `model.layers` written as one block for each layer."""
    model = tree.get("model")
    layers = model.get("layers") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(layers, Mapping) or "blocks" in layers:
        return tree
    found: list[Wrong] = []
    blocks = blocks_of(layers, found, notes)
    here = ("model", "layers")
    wrong += [Problem(find(tree, here + path) or start, text) for path, text in found]
    if found:  # check what can still be checked: the block itself
        blocks = Items([layers["block"]] if "block" in layers else [])
    return _with(tree, "model", _with(model, "layers", marked(layers, blocks)))


def _with(source: Mapping[Any, Any], key: Any, value: Any) -> Table:
    table = Table()
    for k in source:
        table.take(k, source, value if k == key else source[k])
    return table


def assign(tree: Table, assignment: str) -> None:
    """Apply `path.to.key=value`, the value written as YAML, in place. Raises SpecError."""
    path, equals, text = assignment.partition("=")
    mark = Mark("--set", 0, 0, path, f"--set {assignment}")
    if not equals or not all(path.split(".")):
        raise SpecError([Problem(mark, f"must be PATH=VALUE, such as model.d_model=64, got '{assignment}'")])
    value, _ = yaml.parse(text, "--set")
    here: Any = tree
    keys = path.split(".")
    for i, key in enumerate(keys[:-1]):
        here = _step(here, key, ".".join(keys[: i + 1]), mark)
    last = _key(here, keys[-1], mark)
    if isinstance(here, list):
        here[last] = value
    else:
        here.put(last, _typed(here.get(last), value), mark, mark)


def _step(here: Any, key: str, path: str, mark: Mark) -> Any:
    step = _key(here, key, mark)
    if isinstance(here, dict) and step not in here:
        here.put(step, Table(), mark, mark)
    if isinstance(here[step], str):  # a part by its bare name: options go into the mapping it stands for
        table = Table()
        table.put("type", here[step], *(m for m in (find(here, (step,)), find(here, (step,)))))
        here[step] = table
    if not isinstance(here[step], (dict, list)):
        raise SpecError([Problem(mark, f"'{path}' is {here[step]!r}, which has nothing inside")])
    return here[step]


def _key(here: Any, key: str, mark: Mark) -> Any:
    number = int(key) if key.lstrip("-").isdigit() else None
    if isinstance(here, list):
        if number is None or not -len(here) <= number < len(here):
            raise SpecError([Problem(mark, f"'{key}' must be a number of an item of this list of {len(here)}")])
        return number
    return number if number is not None and key not in here else key


def _typed(old: Any, value: Any) -> Any:
    """A bare part name replaces a part; the same name leaves its options."""
    return old if isinstance(old, Mapping) and old.get("type") == value and isinstance(value, str) else value
