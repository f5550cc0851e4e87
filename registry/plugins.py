"""Installed plugins, read from the entry points of installed distributions without importing them.

A plugin is a namespace. Its distribution announces, for each of its parts, an entry point in the group
`transformer_kit.<family>` named `namespace.part`.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "transformer_kit."
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\.[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Entry:
    """One part announced by one distribution."""

    family: str
    name: str
    distribution: str
    point: "EntryPoint"

    @property
    def namespace(self) -> str:
        """The plugin's name; empty when the distribution claims a bare name."""
        namespace, dot, _ = self.name.partition(".")
        return namespace if dot else ""

    @property
    def source(self) -> str:
        """Where the part comes from, for messages."""
        return f"distribution '{self.distribution}' ({self.point.value})"

    def load(self) -> Any:
        """Import the part; whatever its module raises passes through."""
        return self.point.load()


@cache
def all_entries() -> tuple[Entry, ...]:
    """Every entry point of every family, as found when first asked (`all_entries.cache_clear()` looks again)."""
    from importlib.metadata import distributions  # slow to import, and not needed until something is looked up

    announced = [(d, [p for p in d.entry_points if p.group.startswith(GROUP)]) for d in distributions()]
    if not any(points for _, points in announced):
        return ()  # the usual case; names, which have to be parsed out of long files, are not needed
    found: dict[str, list[Entry]] = {}
    for distribution, points in announced:
        name = distribution.name or "unknown"
        if name not in found:  # the first on the path hides later copies, as it does for imports
            found[name] = [Entry(p.group.removeprefix(GROUP), p.name, name, p) for p in points]
    return tuple(entry for entries_of_one in found.values() for entry in entries_of_one)


def entries(family: str) -> list[Entry]:
    """The entry points of one family."""
    return [e for e in all_entries() if e.family == family]


def namespaces() -> list[str]:
    """Names of all installed plugins."""
    return sorted({e.namespace for e in all_entries() if e.namespace})


def problem(namespace: str) -> str | None:
    """Why this plugin cannot be used; None when one distribution brings it and keeps to its own namespace."""
    own = [e for e in all_entries() if namespace and e.namespace == namespace]
    owners = sorted({e.distribution for e in own})
    if not own:
        return f"plugin '{namespace}' is not installed (installed: {', '.join(namespaces()) or 'none'}){_strays()}"
    if len(owners) > 1:
        return f"plugin namespace '{namespace}' is claimed by two distributions: {', '.join(owners)}; uninstall one"
    for entry in all_entries():
        if entry.distribution == owners[0] and not NAME.fullmatch(entry.name):
            return (
                f"plugin '{namespace}': {entry.source} claims the name '{entry.name}' in {entry.family}; "
                f"a plugin's names are 'namespace.name', names without a namespace are the core's"
            )
    return None


def _strays() -> str:
    bare = [e for e in all_entries() if not e.namespace]
    return "".join(f"; {e.source} claims the bare name '{e.name}', which is the core's" for e in bare)
