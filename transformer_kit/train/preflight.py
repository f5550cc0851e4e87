"""What is wrong with a run config that a schema cannot see, found before anything is made: `kit check` looks here too.

Parts, data and tokenizer are asked; small data is read, of larger ones the beginning of each file.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from registry.contracts import Tokenizer
from transformer_kit.data.prepare import SHOWN
from transformer_kit.model.model import Model
from transformer_kit.spec.errors import Problem, SpecError
from transformer_kit.spec.place import at, mark
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train.assemble import outline, parts, sequence_length, trackers
from transformer_kit.train.corpus import check_vocabulary
from transformer_kit.train.precision import named_device
from transformer_kit.train.sample import check_prompt


def check(spec: RunSpec, base: Path, *, own_tokenizer: bool = True) -> Model:
    """The model without memory, as it will learn. SpecError with everything that keeps `spec` from being trained.

    base           folder that relative paths in the spec start from
    own_tokenizer  False where the tokens are those of a folder that the run starts from
    """
    made: list[Model] = []
    _all(_looks(spec, base, own_tokenizer, made))
    return made[0]


def _all(looks: Iterable[Callable[[], object]]) -> None:
    found: list[SpecError] = []
    for look in looks:
        try:
            look()
        except SpecError as error:
            found.append(error)
    if len(found) == 1:
        raise found[0]
    if found:
        raise SpecError([problem for error in found for problem in error.problems])


def _looks(spec: RunSpec, base: Path, own_tokenizer: bool, made: list[Model]) -> Iterator[Callable[[], object]]:
    yield lambda: sequence_length(spec)
    yield lambda: _device(spec)
    yield lambda: made.append(_model(spec))
    yield lambda: parts(spec)
    yield lambda: _optimizer(spec)
    yield lambda: trackers(spec, Path())
    yield lambda: _data(spec, base)
    if own_tokenizer:
        yield lambda: _tokenizer(spec, base)


def _device(spec: RunSpec) -> None:
    with at(spec, "hardware", "device"):
        named_device(spec.hardware.device)


def _model(spec: RunSpec) -> Model:
    """The model itself, and what of it learns."""
    model = outline(spec)
    with at(spec, "optimizer"):
        spec.optimizer.part(spec.optimizer).make(model)
    return model


def _optimizer(spec: RunSpec) -> None:
    """The optimizer without its model, of which something may be wrong too."""
    with at(spec, "optimizer"):
        spec.optimizer.part(spec.optimizer)


def _data(spec: RunSpec, base: Path) -> None:
    with at(spec, "data"):
        found = list(islice(spec.data.part(spec.data, base).faults(), SHOWN + 1))
    if found:
        listed = [*found[:SHOWN], *(["more is wrong than is named here"] if len(found) > SHOWN else [])]
        raise SpecError([Problem(mark(spec, "data"), text) for text in listed])


def _tokenizer(spec: RunSpec, base: Path) -> None:
    with at(spec, "tokenizer"):
        tokenizer: Tokenizer = spec.tokenizer.part(spec.tokenizer, base)
    if tokenizer.needs_training:  # how many ids it will have, and how it cuts a prompt, is not known yet
        return
    _all([lambda: check_vocabulary(spec, tokenizer), lambda: check_prompt(spec, tokenizer)])
