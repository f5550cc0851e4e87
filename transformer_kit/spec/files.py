"""Finds the pages that a page builds on: `extends`, `model`, and the names of the specs that come with the kit.

A page may name a shipped spec (`tutorial`) or a file by a path relative to its own (`../models/mine.yaml`), inside
the tree it was started from. No other path, and no URL, is ever opened.
"""

import re
from pathlib import Path
from typing import Any

from transformer_kit.spec import yaml
from transformer_kit.spec.errors import Mark, Problem, SpecError
from transformer_kit.spec.tree import Table, find, merge, stamp

MAX_DEPTH = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def shipped() -> Path:
    """The folder of specs that come with the kit: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(p for p in (package / "configs", package.parent / "configs") if (p / "models").is_dir())


def names(kind: str = "models") -> list[str]:
    """Names of the specs of one kind that come with the kit: `models` or `runs`."""
    return sorted(p.stem for p in (shipped() / kind).glob("*.yaml"))


def locate(spec: str | Path) -> Path:
    """The file that a person means: a path, or the name of a shipped spec. Raises SpecError."""
    path = Path(spec)
    if path.is_file():
        return path
    if isinstance(spec, str) and _NAME.fullmatch(spec) and path.suffix not in (".yaml", ".yml"):
        for kind in ("models", "runs"):
            if (shipped() / kind / f"{spec}.yaml").is_file():
                return shipped() / kind / f"{spec}.yaml"
    what = "is a folder" if path.is_dir() else "does not exist"
    hint = f"; specs that come with the kit: {', '.join([*names('models'), *names('runs')])}"
    raise SpecError([Problem(Mark(str(spec)), f"the file {what}{hint}")])


def page(path: Path) -> tuple[Table, Mark]:
    """The mapping in one file, as written. Raises SpecError."""
    shown = str(path)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError([Problem(Mark(shown), f"not UTF-8 text: byte {error.start}: {error.reason}")]) from None
    except OSError as error:
        raise SpecError([Problem(Mark(shown), f"cannot be read: {error.strerror}")]) from None
    value, mark = yaml.parse(text, shown)
    if value is None:
        raise SpecError([Problem(Mark(shown, 1, 1), "the page is empty; `kit new model NAME` writes a first one")])
    if not isinstance(value, Table):
        kind = "a list" if isinstance(value, list) else "one value"
        raise SpecError([Problem(mark, f"a page must be a mapping of keys to values, got {kind}")])
    return value, mark


def load(path: Path, dropped: list[str]) -> tuple[Table, Mark]:
    """The mapping in `path` with all it builds on laid underneath."""
    return _load(path, _root(path), (), dropped)


def _root(path: Path) -> Path:
    """The tree whose files a page may name: the working folder, else the `configs` around it, else its folder."""
    here, cwd = path.resolve(), Path.cwd().resolve()
    if here.is_relative_to(cwd):
        return cwd
    around = [p for p in here.parents if p.name == "configs"]
    return around[0] if around else here.parent


def _load(path: Path, root: Path, above: tuple[Path, ...], dropped: list[str]) -> tuple[Table, Mark]:
    table, start = page(path)
    above = (*above, path.resolve())
    table = _extended(table, path, root, above, dropped)
    model = table.get("model")
    if isinstance(model, str):
        table.take("model", table, _reference(model, find(table, ("model",)), path, root, above, dropped).get("model"))
    elif isinstance(model, Table):
        table.take("model", table, _extended(model, path, root, above, dropped, "model"))
    return table, start


def _extended(
    table: Table, path: Path, root: Path, above: tuple[Path, ...], dropped: list[str], key: str | None = None
) -> Table:
    """`table` laid on the page its `extends` names, or on that page's `key`."""
    if "extends" not in table:
        return table
    mark = find(table, ("extends",)) or Mark(str(path))
    name = table["extends"]
    if not isinstance(name, str):
        raise SpecError([Problem(mark, f"must be the name of a spec or a path to one, got {name!r}")])
    base: Any = _reference(name, mark, path, root, above, dropped)
    if key is not None:
        base = base.get(key, Table())
    own = Table()
    for k in table:
        if k != "extends":
            own.take(k, table, table[k])
    merged: Table = merge(base, own, dropped)
    return merged


def _reference(
    name: str, mark: Mark | None, path: Path, root: Path, above: tuple[Path, ...], dropped: list[str]
) -> Table:
    mark = mark or Mark(str(path))
    target = _target(name, mark, path, root)
    if target.resolve() in above or len(above) > MAX_DEPTH:
        chain = " -> ".join(p.name for p in (*above, target))
        raise SpecError([Problem(mark, f"pages build on each other in a circle: {chain}")])
    table, _ = _load(target, root if target.is_relative_to(root) else shipped(), above, dropped)
    stamped: Table = stamp(table, f"from {target.name}, which {path.name} builds on")
    return stamped


def _target(name: str, mark: Mark, path: Path, root: Path) -> Path:
    if not name.endswith((".yaml", ".yml")):
        known = shipped() / "models" / f"{name}.yaml"
        if _NAME.fullmatch(name) and known.is_file():
            return known
        hint = ", ".join(names())
        raise SpecError([Problem(mark, f"no spec '{name}' comes with the kit; choose from {hint}, or a .yaml file")])
    target = (path.parent / name).resolve()
    if Path(name).is_absolute() or not (target.is_relative_to(root) or target.is_relative_to(shipped().resolve())):
        raise SpecError([Problem(mark, f"'{name}' lies outside {root}; a page builds on files of its own tree")])
    if not target.is_file():
        raise SpecError([Problem(mark, f"the file '{name}' does not exist beside {path.name}")])
    return target
