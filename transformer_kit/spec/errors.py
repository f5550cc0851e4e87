"""What is wrong with a spec, all at once.

    SpecError          everything that is wrong with one page; a ValueError
    `- .problems       each a `Problem`: where it stands, and what, got, choose
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """A place in a page."""

    file: str
    line: int = 0
    column: int = 0
    path: str = ""
    """Dotted path of the value in its own page."""
    via: str = ""
    """How the value came to be in the spec, when not from the page itself: `--set`, or `extends` and from where."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    mark: Mark
    text: str

    def __str__(self) -> str:
        path = f"{self.mark.path}: " if self.mark.path else ""
        via = f" ({self.mark.via})" if self.mark.via else ""
        return f"{self.mark}: {path}{self.text}{via}"


class SpecError(ValueError):
    """The spec is wrong. `problems` says everything that is; the message has a line for each."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))
