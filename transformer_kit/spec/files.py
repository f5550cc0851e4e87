"""Finds the specs that a spec builds on: `extends`, `model`, and the names of shipped specs.

A spec may name a shipped spec (`tutorial`) or a file by a relative path (`../models/mine.yaml`), inside
the folder tree of the first spec. No other path, and no URL, is ever opened.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry import untrusted
from registry.words import likely, suggest
from transformer_kit.spec import yaml
from transformer_kit.spec.errors import Mark, Problem, SpecError, shown
from transformer_kit.spec.shipped import names, shipped
from transformer_kit.spec.tree import Table, find, merge, stamp

SPEC, RUN = "spec.yaml", "run.yaml"
"""The spec in a model folder, and in a run folder."""
LISTED = "; `kit list models` names the specs that come with the kit"
MAX_DEPTH = 16
MAX_PAGES = 64
MAX_BYTES = 4 * yaml.MAX_LENGTH
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def locate(spec: str | Path) -> Path:
    """The file of a spec: a path, or the name of a shipped spec. Raises SpecError."""
    path = Path(spec)
    if _is_file(path):
        return path
    if isinstance(spec, str) and _NAME.fullmatch(spec) and path.suffix not in (".yaml", ".yml"):
        for kind in ("models", "runs"):
            if _is_file(shipped() / kind / f"{spec}.yaml"):
                return shipped() / kind / f"{spec}.yaml"
    if _is(Path.is_dir, path):
        return _page_in(path)
    what = "there is no such file"
    near = _near(path) or LISTED
    raise SpecError([Problem(Mark(_short(path)), f"{what}{near}")])


def _page_in(folder: Path) -> Path:
    """The spec in a model folder or a run folder: that of the trained model, or else the run's."""
    for name in (SPEC, f"model/{SPEC}", RUN):
        if _is_file(folder / name):
            return folder / name
    what = f"is a folder without a spec ({SPEC} or {RUN}){LISTED}"
    if _is_file(folder / "config.json"):
        what = f"is a Hugging Face folder; `kit import {_short(folder)} OUT --spec-only` makes a spec of its config"
    raise SpecError([Problem(Mark(_short(folder)), what)])


def _near(path: Path) -> str:
    """A suggestion from shipped specs, or from files in the same folder."""
    if path.suffix not in (".yaml", ".yml"):
        known = [*names("models"), *names("runs")]
    else:
        known = [p.name for p in path.parent.glob("*.y*ml")] if _is(Path.is_dir, path.parent) else []
    return suggest(path.name, known) if likely(path.name, known) else ""


def base(spec: str | Path) -> Path:
    """The folder that paths in a spec start from: the spec's own; the working folder for a shipped spec."""
    path = locate(spec)
    return Path() if path.is_relative_to(shipped()) else path.parent


def page(path: Path) -> tuple[Table, Mark]:
    """The mapping in one file, before merging. Raises SpecError."""
    file = _short(path)
    try:
        text = untrusted.text(path, MAX_BYTES)
    except untrusted.FileError as error:
        raise SpecError([Problem(Mark(file), error.reason)]) from error.__cause__
    value, mark = yaml.parse(text, file)
    if value is None:
        raise SpecError([Problem(Mark(file, 1, 1), "the spec is empty; `kit new model NAME` writes a first one")])
    if not isinstance(value, Table):
        kind = "a list" if isinstance(value, list) else "one value"
        raise SpecError([Problem(mark, f"a spec must be a mapping of keys to values, got {kind}")])
    return value, mark


def load(path: Path, dropped: list[str]) -> tuple[Table, Mark]:
    """The mapping in `path` merged onto the specs that it builds on."""
    return _Loader(path, dropped).load(path, ())


def built(tree: Table, path: Path, dropped: list[str]) -> Table:
    """The mapping `tree`, as a spec at `path`, merged onto the specs that it builds on."""
    return _Loader(path, dropped).built(tree, path, ())


def settle(tree: Table, path: Path, dropped: list[str]) -> None:
    """Replace `model`, where it names a spec, by that spec's architecture; paths start at `path`."""
    _Loader(path, dropped).settle(tree, path, (path.resolve(),))


class _Loader:
    """Reads specs of one folder tree, up to a limit."""

    def __init__(self, path: Path, dropped: list[str]) -> None:
        self.root = _root(path)
        self.dropped = dropped
        self.read = 0

    def load(self, path: Path, above: tuple[Path, ...]) -> tuple[Table, Mark]:
        table, start = page(path)
        return self.built(table, path, above), start

    def built(self, table: Table, path: Path, above: tuple[Path, ...]) -> Table:
        """`table`, the spec at `path`, merged onto the specs that it builds on."""
        above = (*above, path.resolve())
        own = self.settle(table, path, above)
        if "extends" not in table:
            return table
        base = self._reference(table, "extends", path, above)
        if own and "model" in base:  # a model of its own replaces the inherited one instead of merging with it
            del base["model"]
        merged: Table = merge(base, _without(table, "extends"), self.dropped)
        return merged

    def settle(self, table: Table, path: Path, above: tuple[Path, ...]) -> bool:
        """Put the named architecture at `model`, or under its changes; return whether one was named."""
        model = table.get("model")
        if isinstance(model, str):
            table.take("model", table, self._model(table, "model", path, above))
            return True
        if not isinstance(model, Table) or "extends" not in model:
            return False
        base = self._model(model, "extends", path, above)
        table.take("model", table, merge(base, _without(model, "extends"), self.dropped, "model"))
        return True

    def _model(self, source: Table, key: str, path: Path, above: tuple[Path, ...]) -> Any:
        base = self._reference(source, key, path, above)
        if "model" not in base:
            raise SpecError([_problem(source, key, path, f"the spec '{source[key]}' describes no model")])
        return base["model"]

    def _reference(self, source: Table, key: str, path: Path, above: tuple[Path, ...]) -> Table:
        """The spec that `source[key]` names, merged onto the specs that it builds on."""
        name = source[key]
        if not isinstance(name, str):
            text = f"must be the name of a spec or a path to one, got {shown(name)}"
            raise SpecError([_problem(source, key, path, text)])
        target = self._target(source, key, path)
        self.read += 1
        if target.resolve() in above:
            chain = " -> ".join(p.name for p in (*above, target))
            raise SpecError([_problem(source, key, path, f"specs build on each other in a circle: {chain}")])
        if len(above) > MAX_DEPTH or self.read > MAX_PAGES:
            text = f"builds on too many specs: at most {MAX_DEPTH} deep and {MAX_PAGES} in all"
            raise SpecError([_problem(source, key, path, text)])
        table, _ = self.load(target, above)
        stamped: Table = stamp(table, f"from {target.name}, which {path.name} builds on")
        return stamped

    def _target(self, source: Table, key: str, path: Path) -> Path:
        name: str = source[key]
        if not name.endswith((".yaml", ".yml")):
            for kind in ("models", "runs") if _NAME.fullmatch(name) else ():
                if _is_file(shipped() / kind / f"{name}.yaml"):
                    return shipped() / kind / f"{name}.yaml"
            near = suggest(name, [*names(), *names("runs")])
            text = f"no spec '{_brief(name)}' comes with the kit (a path to a file ends in .yaml){near}"
            raise SpecError([_problem(source, key, path, text)])
        if Path(name).is_absolute():
            text = f"'{_brief(name)}' is an absolute path; write it relative to the folder of {path.name}"
            raise SpecError([_problem(source, key, path, text)])
        target = _resolved(path.parent / name)
        if target is not None and not any(target.is_relative_to(tree.resolve()) for tree in (self.root, shipped())):
            text = f"'{name}' lies outside {self.root}, the tree of this spec; start from a folder that holds both"
            raise SpecError([_problem(source, key, path, text)])
        if target is None or not _is_file(target):
            text = f"there is no file '{_brief(name)}', relative to the folder of {path.name}"
            raise SpecError([_problem(source, key, path, text)])
        return target


def _root(path: Path) -> Path:
    """The tree of files that a spec may name: the working folder, else the enclosing `configs`, else its own folder."""
    here, cwd = path.resolve(), Path.cwd().resolve()
    if here.is_relative_to(cwd):
        return cwd
    around = [p for p in here.parents if p.name == "configs"]
    return around[0] if around else here.parent


def _problem(source: Table, key: str, path: Path, text: str) -> Problem:
    return Problem(find(source, (key,)) or Mark(_short(path)), text)


def _without(table: Table, key: str) -> Table:
    rest = Table()
    for k in table:
        if k != key:
            rest.take(k, table, table[k])
    return rest


def _short(path: Path) -> str:
    """The path as messages show it: relative to the working folder, if inside it."""
    try:
        return _brief(str(path.relative_to(Path.cwd())))
    except ValueError:
        return _brief(str(path))


def _brief(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."


def _resolved(path: Path) -> Path | None:
    """The resolved path; None for circular links and invalid names."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def _is_file(path: Path) -> bool:
    return _is(Path.is_file, path)


def _is(question: Callable[[Path], bool], path: Path) -> bool:
    """The result of a file system check; False for invalid paths: names too long or with a NUL."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False
