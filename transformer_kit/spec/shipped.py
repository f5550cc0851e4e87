"""The specs that come with the kit: where they lie and what they are called. Imports next to nothing, for speed."""

from pathlib import Path


def shipped() -> Path:
    """The folder of specs that come with the kit: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(p for p in (package / "configs", package.parent / "configs") if (p / "models").is_dir())


def names(kind: str = "models") -> list[str]:
    """Names of the specs of one kind that come with the kit: `models` or `runs`."""
    return sorted(p.stem for p in (shipped() / kind).glob("*.yaml"))
