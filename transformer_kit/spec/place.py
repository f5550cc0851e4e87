"""Gives what is found wrong after a spec was read its place there: parts, data and machines know more than a schema.

with at(spec, "train", "freeze"):
    freeze(model, spec.train.freeze)    a ValueError in here is a SpecError with file, line and column
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from transformer_kit.spec.errors import Mark, Problem, SpecError
from transformer_kit.spec.schema import Spec


@contextmanager
def at(spec: Spec, *path: str) -> Iterator[None]:
    """Inside, whatever is wrong is wrong with the value at `path` of the spec, or with what stands around it."""
    try:
        yield
    except SpecError:  # it has its place
        raise
    except ValueError as error:
        raise SpecError([Problem(mark(spec, *path), str(error))]) from error


def mark(spec: Spec, *path: str) -> Mark:
    """Where the value at `path` stands; the nearest thing around it when it is a default."""
    around: Mark = Mark("spec") if spec._source is None else spec._source.mark(path)
    return replace(around, path=".".join(path))
