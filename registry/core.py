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
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, overload

from registry import plugins as installed
from registry.words import suggest as suggest

ROOT = Path(__file__).parent
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

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
    here = (n for f, n in _registered if f == family and not _needs_listing(n))
    return sorted({*_core_names(family), *_plugin_parts(family), *here})


def get(family: str, name: str) -> Any:
    """The class registered as `name`; imports its file and no other."""
    part = _registered.get((family, name))
    if part is not None and not _needs_listing(name):
        return part
    _check_family(family)
    if _is_core(family, name):
        return _import_core(family, name)
    if name in _plugin_parts(family):
        return _import_plugin(family, name)
    if _needs_listing(name):
        namespace = name.partition(".")[0]
        raise PluginError(
            f"{family} '{name}' belongs to plugin '{namespace}', which is installed and not listed; "
            f"add '{namespace}' under `plugins:`"
        )
    raise UnknownPart(_unknown(family, name))


@overload
def register(target: T) -> T: ...
@overload
def register(target: str) -> Callable[[T], T]: ...
def register(target: Any) -> Any:
    """Announce a part: bare in a file of the registry, with a `namespace.name` everywhere else."""
    if isinstance(target, str):
        return lambda cls: _register(cls, target)
    family = _family_of(target)
    home, _, stem = target.__module__.rpartition(".")
    if home != f"registry.{family}":
        raise RegistryError(
            f"{target.__qualname__}: a bare @register belongs in a file of registry/{family}/; "
            f"elsewhere give a name with a namespace: @register('my.{target.__name__.lower()}')"
        )
    return _register(target, stem)


@contextmanager
def scope() -> Iterator[None]:
    """Undo, on leaving, every registration made inside. The core's parts stay: their files are imported once."""
    before = dict(_registered)
    try:
        yield
    finally:
        for key in [k for k in _registered if "." in k[1]]:
            del _registered[key]
        _registered.update(before)


@contextmanager
def activate(namespaces: frozenset[str]) -> Iterator[None]:
    """Make the parts of these plugins available inside, and of no others; PluginError if one is not installed."""
    for namespace in sorted(namespaces):
        problem = installed.problem(namespace)
        if problem is not None:
            raise PluginError(problem)
    token = _active.set(namespaces)
    try:
        yield
    finally:
        _active.reset(token)


def active() -> frozenset[str]:
    """Namespaces of the plugins that are active here."""
    return _active.get()


def elsewhere(family: str, name: str) -> list[str]:
    """Other families which have a part of this name."""
    here = {f for f in families() if _is_core(f, name)}
    made = {f for f, n in _registered if n == name and not _needs_listing(n)}
    announced = {e.family for e in installed.all_entries() if e.name == name and e.namespace in _active.get()}
    return sorted((here | made | announced) - {family})


def origin(family: str, name: str) -> str:
    """Where a part comes from: its file, or the distribution that brings it."""
    if _is_core(family, name):
        return str(_path(family, name))
    plugin = _plugin_parts(family).get(name)
    return _source(get(family, name)) if plugin is None else plugin.source


def summary(family: str, name: str) -> str:
    """First line of a core part's documentation, read without importing it; the origin of other parts."""
    if not _is_core(family, name):
        return f"from {origin(family, name)}"
    return _first_line(_path(family, name))


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


def _is_core(family: str, name: str) -> bool:
    return NAME.fullmatch(name) is not None and _path(family, name).is_file()


def _path(family: str, name: str) -> Path:
    return ROOT / family / f"{name}.py"


def _plugin_parts(family: str) -> dict[str, installed.Entry]:
    listed = _active.get()
    return {e.name: e for e in installed.entries(family) if e.namespace in listed} if listed else {}


def _is_family(family: str) -> bool:
    return NAME.fullmatch(family) is not None and (ROOT / family / "__init__.py").is_file()


def _check_family(family: str) -> None:
    if not _is_family(family):
        raise UnknownFamily(f"no family '{family}'{suggest(family, families())}")


def _needs_listing(name: str) -> bool:
    """Whether `name` lies in the namespace of a plugin that is installed and not active here."""
    namespace, dot, _ = name.partition(".")
    return bool(dot) and namespace not in _active.get() and namespace in installed.namespaces()


def _family_of(cls: type) -> str:
    family = getattr(cls, "family", None)
    if not isinstance(family, str) or not _is_family(family):
        raise RegistryError(f"{cls.__qualname__} belongs to no family: derive it from a class of registry.contracts")
    return family


def _register(cls: T, name: str) -> T:
    family = _family_of(cls)
    core = cls.__module__ == f"registry.{family}.{name}"
    if not core and not installed.NAME.fullmatch(name):
        raise RegistryError(
            f"'{name}': a name without a namespace is the core's; choose 'namespace.name', as in 'my.part'"
        )
    previous = _registered.get((family, name))
    if previous is not None and _source(previous) != _source(cls):
        raise DuplicatePart(f"{family} '{name}' is registered twice: by {_source(previous)} and by {_source(cls)}")
    other = cls.__dict__.get("name")
    if other not in (None, name) and _registered.get((family, str(other))) is cls:
        raise DuplicatePart(f"{_source(cls)} is {family} '{other}' already; '{name}' needs a class of its own")
    cls.name = name  # type: ignore[attr-defined]
    _registered[family, name] = cls
    return cls


def _source(cls: type) -> str:
    try:
        return f"{inspect.getfile(cls)} ({cls.__qualname__})"
    except (TypeError, OSError):
        return f"{cls.__module__}.{cls.__qualname__}"


def _import_core(family: str, name: str) -> Any:
    _load(lambda: importlib.import_module(f"registry.{family}.{name}"), f"{family} '{name}'")
    if (family, name) not in _registered:
        raise BrokenPart(f"{_path(family, name)} registers no part: @register is missing")
    return _registered[family, name]


def _import_plugin(family: str, name: str) -> Any:
    entry = _plugin_parts(family)[name]
    cls = _load(entry.load, f"{family} '{name}' of {entry.source}")
    if not isinstance(cls, type) or getattr(cls, "family", None) != family:
        raise PluginError(f"{entry.source} offers {family} '{name}', which is not a part of that family")
    return _register(cls, name)


def _load(load: Callable[[], Any], what: str) -> Any:
    before = set(_registered)
    try:
        return load()
    except (Exception, SystemExit) as error:
        for key in set(_registered) - before:  # a module that fails after @register must not leave its part behind
            if _registered[key].__module__ not in sys.modules:
                del _registered[key]
        raise BrokenPart(f"{what} cannot be imported: {type(error).__name__}: {error}") from error


def _unknown(family: str, name: str) -> str:
    name = name if name.isprintable() and len(name) <= 80 else ascii(name)[1:-1][:80]
    namespace, dot, _ = name.partition(".")
    known = {*_active.get(), *(n.partition(".")[0] for _, n in _registered)}
    missing = f"; no plugin '{namespace}' is installed" if dot and namespace not in known else ""
    others = elsewhere(family, name)
    where = f"; '{name}' is a part of {', '.join(others)}" if others else suggest(name, names(family))
    return f"no {family} '{name}'{missing}{where}"
