"""Families of parts: a family is a folder, a name is a file. Knows no domain and imports no torch.

    names("ffn")             what `registry/ffn/` holds, without importing any of it
    get("ffn", "gated")      imports `registry/ffn/gated.py`, and nothing else
    @register                announces the class of a part's file
    @register("my.swish")    announces a class of a notebook or a test, until its `scope()` ends

Third-party parts come through entry points: group `transformer_kit.<family>`, name `namespace.part`. They can be
had only while their namespace is active (`activate`), which a spec does by listing it under `plugins:`.

Errors: RegistryError
        |- UnknownFamily, UnknownPart   the name is not there; the message says what is
        |- DuplicatePart                two classes claim one name; the message gives both origins
        |- BrokenPart                   the file is there and does not import
        `- PluginError                  a plugin is missing, not listed, or claims what is not its own
"""

import ast
import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, overload

from registry import plugins as installed

ROOT = Path(__file__).parent
NAME = re.compile(r"[a-z][a-z0-9_]*")
QUALIFIED = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")

_registered: dict[tuple[str, str], type] = {}
_active: ContextVar[frozenset[str]] = ContextVar("active plugins", default=frozenset())

T = TypeVar("T", bound=type)


class RegistryError(Exception):
    """A name could not be turned into a part."""


class UnknownFamily(RegistryError):
    """There is no such family."""


class UnknownPart(RegistryError):
    """The family has no part of that name."""


class DuplicatePart(RegistryError):
    """Two classes claim one name."""


class BrokenPart(RegistryError):
    """The part's file exists and cannot be imported."""


class PluginError(RegistryError):
    """A plugin is not installed, not listed, or claims a name that is not its own."""


def families() -> list[str]:
    """Names of all families: the folders beside this file."""
    return sorted(p.parent.name for p in ROOT.glob("*/__init__.py"))


def names(family: str) -> list[str]:
    """Names of one family's parts: the core's files, active plugins' parts, parts registered in this process."""
    return sorted({*_core_names(family), *_plugin_parts(family), *(n for f, n in _registered if f == family)})


def get(family: str, name: str) -> Any:
    """The class registered as `name`; imports its file and no other."""
    _check_family(family)
    if (family, name) in _registered and not _needs_listing(family, name):
        return _registered[family, name]
    if name in _core_names(family):
        return _import_core(family, name)
    if "." in name:
        return _import_plugin(family, name)
    raise UnknownPart(_unknown(family, name))


@overload
def register(target: T) -> T: ...
@overload
def register(target: str) -> Callable[[T], T]: ...
def register(target: Any) -> Any:
    """Announce a part: bare in a file of the registry, with a `namespace.name` everywhere else."""
    if isinstance(target, str):
        return lambda cls: _register(cls, target)
    family, _, stem = target.__module__.removeprefix("registry.").partition(".")
    if target.__module__ != f"registry.{family}.{stem}" or family != target.family:
        raise RegistryError(
            f"{target.__qualname__}: a bare @register belongs in a file of registry/{target.family}/; "
            f"elsewhere give a name with a namespace: @register('my.{target.__name__.lower()}')"
        )
    return _register(target, stem)


@contextmanager
def scope() -> Iterator[None]:
    """Undo, on leaving, every registration made inside."""
    before = dict(_registered)
    try:
        yield
    finally:
        gone = set(_registered) - set(before)
        for key in gone:
            if "." in key[1]:
                del _registered[key]


@contextmanager
def activate(namespaces: frozenset[str]) -> Iterator[None]:
    """Make the parts of these plugins available inside, and of no others; PluginError if one is not installed."""
    for namespace in sorted(namespaces):
        installed.check(namespace, PluginError)
    token = _active.set(namespaces)
    try:
        yield
    finally:
        _active.reset(token)


def active() -> frozenset[str]:
    """Namespaces of the plugins that are active here."""
    return _active.get()


def suggest(word: str, choices: list[str]) -> str:
    """`; did you mean 'x'?` or, when nothing is near, `; choose from a, b, c`; empty without choices."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; choose from {', '.join(choices)}" if choices else ""


def elsewhere(family: str, name: str) -> list[str]:
    """Other families which have a part of this name."""
    return [f for f in families() if f != family and name in _core_names(f)]


def origin(family: str, name: str) -> str:
    """Where a part comes from: its file, or the distribution that brings it."""
    if name in _core_names(family):
        return str(ROOT / family / f"{name}.py")
    if (family, name) in _registered:
        return _source(_registered[family, name])
    return _plugin_parts(family)[name].source


def summary(family: str, name: str) -> str:
    """First line of a core part's documentation, read without importing it; the origin of other parts."""
    if name not in _core_names(family):
        return f"from {origin(family, name)}"
    return _first_line(ROOT / family / f"{name}.py")


def family_summary(family: str) -> str:
    """What a family is for: first line of its folder's documentation."""
    _check_family(family)
    return _first_line(ROOT / family / "__init__.py")


def _first_line(path: Path) -> str:
    try:
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    except (SyntaxError, UnicodeDecodeError) as error:
        return f"broken: {error}"
    return text.split("\n", 1)[0]


def _core_names(family: str) -> list[str]:
    _check_family(family)
    return sorted(p.stem for p in (ROOT / family).glob("*.py") if NAME.fullmatch(p.stem))


def _plugin_parts(family: str) -> dict[str, installed.Entry]:
    return {e.name: e for e in installed.entries(family) if e.namespace in _active.get()}


def _check_family(family: str) -> None:
    if family not in families():
        raise UnknownFamily(f"no family '{family}'{suggest(family, families())}")


def _needs_listing(family: str, name: str) -> bool:
    """True for a plugin's part that was imported earlier, in a spec that does list its plugin."""
    namespace = name.partition(".")[0]
    return namespace not in _active.get() and any(e.name == name for e in installed.entries(family))


def _register(cls: T, name: str) -> T:
    family = getattr(cls, "family", None)
    if family not in families():
        raise RegistryError(f"{cls.__qualname__} belongs to no family: derive it from a class of registry.contracts")
    core = cls.__module__ == f"registry.{family}.{name}"
    if not core and not QUALIFIED.fullmatch(name):
        raise RegistryError(f"'{name}': names without a namespace are the core's; use 'namespace.name', as in 'my.{name}'")
    previous = _registered.get((family, name))
    if previous is not None and _source(previous) != _source(cls):
        raise DuplicatePart(f"{family} '{name}' is registered twice: by {_source(previous)} and by {_source(cls)}")
    cls.name = name  # type: ignore[attr-defined]
    _registered[family, name] = cls
    return cls


def _source(cls: type) -> str:
    try:
        return f"{inspect.getfile(cls)} ({cls.__qualname__})"
    except (TypeError, OSError):
        return f"{cls.__module__}.{cls.__qualname__}"


def _import_core(family: str, name: str) -> Any:
    try:
        importlib.import_module(f"registry.{family}.{name}")
    except Exception as error:
        raise BrokenPart(f"{family} '{name}' cannot be imported: {type(error).__name__}: {error}") from error
    if (family, name) not in _registered:
        raise BrokenPart(f"{ROOT / family / name}.py registers no part: @register is missing")
    return _registered[family, name]


def _import_plugin(family: str, name: str) -> Any:
    namespace = name.partition(".")[0]
    if namespace not in _active.get():
        hint = "add it under `plugins:`" if namespace in installed.namespaces() else "no such plugin is installed"
        raise PluginError(f"{family} '{name}' belongs to plugin '{namespace}', which the spec does not list; {hint}")
    parts = _plugin_parts(family)
    if name not in parts:
        raise UnknownPart(_unknown(family, name))
    entry = parts[name]
    try:
        cls = entry.load()
    except Exception as error:
        raise BrokenPart(f"{family} '{name}' of {entry.source} cannot be imported: {type(error).__name__}: {error}") from error
    if getattr(cls, "family", None) != family:
        raise PluginError(f"{entry.source} offers {family} '{name}', which is not a part of that family")
    return _register(cls, name)


def _unknown(family: str, name: str) -> str:
    others = elsewhere(family, name)
    where = f"; '{name}' is a part of {', '.join(others)}" if others else ""
    return f"no {family} '{name}'{where or suggest(name, names(family))}"
