"""Adds the place in the spec to faults that parts, data or the machine report after the spec was read.

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
    """Inside, an error becomes a SpecError at the value at `path` of the spec, or at the nearest value around it."""
    try:
        yield
    except SpecError:  # it has a place already
        raise
    except ValueError as error:
        raise SpecError([Problem(mark(spec, *path), str(error))]) from error


def mark(spec: Spec, *path: str) -> Mark:
    """Place of the value at `path`; for a default, of the nearest value around it."""
    around: Mark = Mark("spec") if spec._source is None else spec._source.mark(path)
    return replace(around, path=".".join(path))
