"""`kit new`: a commented page or a small plugin to start from."""

import json as codec
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from transformer_kit.cli.output import Json, emit, say

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
SCHEMA = "kit.schema.json"
_PAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLUGIN = re.compile(r"[a-z][a-z0-9_]*")


class Kind(StrEnum):
    """Kinds of files to start."""

    model = "model"
    run = "run"
    plugin = "plugin"


def new(
    kind: Annotated[Kind, typer.Argument(metavar="model|run|plugin", help="What to start.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the file, or namespace of the plugin.")],
    folder: Annotated[Path, typer.Option("--in", metavar="DIR", help="Folder to write into.")] = Path(),
    json: Json = False,
) -> None:
    """Write a commented file to start from: a model spec, a run config, or a plugin with one part and its test.

    The folder of a spec also gets the JSON schema of specs, for completion in editors. No other file is replaced.

    Example: `kit new run my-run`, then `kit check my-run.yaml` and `kit train my-run.yaml`
    """
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is not a folder")
    written, then = _plugin(name, folder) if kind is Kind.plugin else _page(kind, name, folder)
    if json:
        emit({"files": [str(path) for path in written]})
        return
    for path in written:
        say(f"{path} written")
    say(f"next: {then}", style="bold")


def _page(kind: Kind, name: str, folder: Path) -> tuple[list[Path], str]:
    from transformer_kit.spec.json_schema import json_schema

    made = json_schema()
    name = name.removesuffix(".yaml")
    if not _PAGE.fullmatch(name):
        raise typer.BadParameter(f"must be a name of letters, digits, '.', '_' and '-', got '{name}'")
    target, schema = folder / f"{name}.yaml", folder / SCHEMA
    _refuse(target)
    if schema.exists() and not _is_titled(schema, made["title"]):
        raise FileExistsError(17, "exists already and is not a schema of specs; move it away", str(schema))
    text = _filled((TEMPLATES / f"{kind}.yaml").read_text("utf-8"), {"schema": SCHEMA, "name": name})
    write(schema, codec.dumps(made, indent=1) + "\n", replace=True)
    write(target, text)
    verb = "check" if kind is Kind.model else "train"
    return [target, schema], f"kit {verb} {target}"


def _is_titled(path: Path, title: object) -> bool:
    """Whether a file is a JSON schema with this title."""
    try:
        found = codec.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("title") == title


def _plugin(name: str, folder: Path) -> tuple[list[Path], str]:
    if not _PLUGIN.fullmatch(name):
        raise typer.BadParameter(f"a namespace must have lowercase letters, digits and '_', as in 'acme', got '{name}'")
    import shutil
    import tempfile

    target = folder / f"kit-{name.replace('_', '-')}"
    _refuse(target)
    names = {"name": name, "distribution": target.name, "package": f"kit_{name}"}
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=folder))
    try:
        _copy(TEMPLATES / "plugin", draft, names)
        draft.chmod(0o755)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return sorted(path for path in target.rglob("*") if path.is_file()), f"pip install -e {target}"


def _copy(source: Path, target: Path, names: dict[str, str]) -> None:
    for item in source.iterdir():
        path = target / names.get(item.name, item.name).removesuffix(".txt")
        if item.is_dir():
            path.mkdir()
            _copy(item, path, names)
        else:
            path.write_text(_filled(item.read_text("utf-8"), names), "utf-8")


def _filled(text: str, names: dict[str, str]) -> str:
    for key, value in names.items():
        text = text.replace("{{" + key + "}}", value)
    return text


def _refuse(path: Path) -> None:
    if path.exists():
        raise FileExistsError(17, "exists already; choose another name", str(path))


def write(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a file atomically. Raises OSError, FileExistsError without `replace`."""
    if not replace:
        _refuse(path)
    import tempfile

    if not path.parent.is_dir():
        raise FileNotFoundError(2, "no such folder", str(path.parent))
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
