"""Errors of import and export.

ConvertError      a ValueError that lists every problem found, one per line
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from registry.untrusted import FileError
from transformer_kit.spec.errors import Problem, readable

CONFIG = "config.json"
MAX_PROBLEMS = 40
"""Maximum number of lines in one error."""


class ConvertError(ValueError):
    """A Hugging Face folder cannot be read, or a model cannot be written as one."""

    def __init__(self, where: str, problems: list[str], placed: Sequence[Problem] = ()) -> None:
        self.where = where
        self.problems = [readable(problem) for problem in dict.fromkeys(problems[:MAX_PROBLEMS])]
        if len(problems) > MAX_PROBLEMS:
            self.problems.append(f"and {len(problems) - MAX_PROBLEMS} more")
        self.placed = placed
        """The same problems with source locations, if each has one in a spec."""
        lines = self.problems if len(self.problems) == 1 else ["", *(f"  {p}" for p in self.problems)]
        super().__init__(f"{where}: " + "\n".join(lines))


@contextmanager
def of_folder(folder: Path) -> Iterator[None]:
    """Context that adds the folder to errors of a config.json."""
    try:
        yield
    except ConvertError as error:
        if error.where != CONFIG:
            raise
        raise ConvertError(str(folder / CONFIG), error.problems) from error.__cause__


@contextmanager
def of_file() -> Iterator[None]:
    """Context that turns a FileError into a ConvertError."""
    try:
        yield
    except FileError as error:
        raise ConvertError(str(error.path), [error.reason]) from error.__cause__
