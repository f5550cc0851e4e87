"""Completion of names. Lists folders and entry points, and never imports a part, so that the shell stays fast."""

from registry import core


def families(incomplete: str) -> list[str]:
    """Families, and the other arguments of `kit list`."""
    return [name for name in [*core.families(), "models", "runs"] if name.startswith(incomplete)]


def parts(incomplete: str) -> list[str]:
    """`family/name` of every part; the families alone until one is typed."""
    family, slash, start = incomplete.partition("/")
    if not slash:
        found = [f for f in core.families() if f.startswith(family)]
        return [f"{f}/" for f in found] if len(found) > 1 else [p for f in found for p in parts(f"{f}/")]
    if family not in core.families():
        return []
    return [f"{family}/{name}" for name in core.names(family) if name.startswith(start)]


def specs(incomplete: str) -> list[str]:
    """Shipped specs, and the specs in the folder of the typed path."""
    return [name for kind in ("models", "runs") for name in _shipped(kind) if name.startswith(incomplete)] + _files(
        incomplete, ("*/", "*.yaml", "*.yml")
    )


def runs(incomplete: str) -> list[str]:
    """Shipped runs, and the specs in the folder of the typed path."""
    return [n for n in _shipped("runs") if n.startswith(incomplete)] + _files(incomplete, ("*/", "*.yaml", "*.yml"))


def folders(incomplete: str) -> list[str]:
    """Folders that begin with the typed path."""
    return _files(incomplete, ("*/",))


def _shipped(kind: str) -> list[str]:
    from transformer_kit.spec.shipped import names

    return names(kind)


def _files(incomplete: str, patterns: tuple[str, ...]) -> list[str]:
    from pathlib import Path

    head, slash, start = incomplete.rpartition("/")
    folder = Path(head or slash or ".")
    if not folder.is_dir():
        return []
    found = sorted({p for pattern in patterns for p in folder.glob(pattern) if p.name.startswith(start)})
    shown = [p for p in found if not p.name.startswith(".") or start.startswith(".")]
    return [f"{head}{slash}{p.name}{'/' if p.is_dir() else ''}" for p in shown]
