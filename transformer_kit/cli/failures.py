"""Messages and exit codes for failures.

    0  success
    1  the run failed: the loss is no longer a finite number
    2  the spec or the command is wrong
    3  the environment: a package is missing, a file cannot be read or written, the disk is full
    4  it does not fit

An error in the user's input, the machine or the data is one message on stderr. With --json every command prints an
object, `kit train` one on each line; its `errors` is a list of objects with the keys file, line, column, path, via and
text. Any other exception is a bug of the kit and shows its traceback.
"""

from dataclasses import asdict, dataclass
from typing import Any

from transformer_kit.spec.errors import Mark, Problem, SpecError, readable

GOOD, FAILED, USAGE, ENVIRONMENT, FIT = range(5)
INTERRUPTED = 130

CODES = {
    "transformer_kit.train.errors.OutputError": ENVIRONMENT,
    "transformer_kit.train.errors.CheckpointError": ENVIRONMENT,
    "transformer_kit.train.errors.Diverged": FAILED,
    "transformer_kit.train.errors.RoomError": FIT,
    "registry.core.BrokenPart": ENVIRONMENT,
    "registry.core.RegistryError": USAGE,
    "safetensors._safetensors_rust.SafetensorError": ENVIRONMENT,
    "torch.OutOfMemoryError": FIT,
    "builtins.ValueError": USAGE,
    "builtins.OSError": ENVIRONMENT,
    "builtins.ImportError": ENVIRONMENT,
    "builtins.MemoryError": FIT,
}
"""Exit code of each error class, by full name: importing the classes would import torch."""

_MISTAKEN = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Errors of a wrong path: the command's fault, not the machine's."""


class NotFitting(Exception):
    """The request does not fit into memory."""


@dataclass(frozen=True)
class Failure:
    """One failed command."""

    code: int
    problems: list[Problem]

    def data(self) -> list[dict[str, Any]]:
        """The problems in JSON form."""
        return [entry(p) for p in self.problems]


def entry(problem: Problem) -> dict[str, Any]:
    """One problem in JSON form; line and column are 0 where a file has none."""
    values = {**asdict(problem.mark), "text": problem.text}
    return {key: readable(value) if isinstance(value, str) else value for key, value in values.items()}


def failure(error: BaseException) -> Failure | None:
    """The message for `error`; None for a bug of the kit."""
    if isinstance(error, SpecError):
        return Failure(_code(error, USAGE), error.problems)
    if isinstance(error, NotFitting) or "can't allocate memory" in str(error):
        return Failure(FIT, [_problem(str(error).strip().split("\n", 1)[0])])
    if hasattr(error, "format_message"):  # the parser's own errors; where their class lives depends on typer's version
        return Failure(USAGE, [_problem(error.format_message())])
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]
    known = next((CODES[name] for name in names if name in CODES), None)
    if known is None:
        return None
    return Failure(_code(error, known), [_problem(_text(error))])


def _code(error: BaseException, otherwise: int) -> int:
    """The environment's exit code when such an error caused this one."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and otherwise == USAGE and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ImportError) or (isinstance(cause, OSError) and not isinstance(cause, _MISTAKEN)):
            return ENVIRONMENT
        cause = cause.__cause__ or cause.__context__
    return USAGE if isinstance(error, _MISTAKEN) else otherwise


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    if isinstance(error, MemoryError):
        return "out of memory"
    return str(error) or type(error).__name__


def _problem(text: str) -> Problem:
    return Problem(Mark(""), text)
