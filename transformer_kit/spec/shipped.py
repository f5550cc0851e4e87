"""Folder and names of shipped specs. Imports almost nothing, for speed."""

from pathlib import Path


def shipped() -> Path:
    """The folder of shipped specs: inside the installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(p for p in (package / "configs", package.parent / "configs") if (p / "models").is_dir())


def names(kind: str = "models") -> list[str]:
    """Names of the shipped specs of one kind: `models` or `runs`."""
    return sorted(p.stem for p in (shipped() / kind).glob("*.yaml"))
