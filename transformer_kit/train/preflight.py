"""Faults of a run config that a schema cannot see, found before the run starts; `kit check` uses it too.

It asks parts, data and tokenizer. It loads small data whole, and of larger data the beginning of each file.
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
    """The model on the meta device, frozen as in training. SpecError with all faults that would prevent training.

    base           folder that relative paths in the spec start from
    own_tokenizer  False where the run takes the tokenizer of a trained folder
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
    """The model, and which of its parameters learn."""
    model = outline(spec)
    with at(spec, "optimizer"):
        spec.optimizer.part(spec.optimizer).make(model)
    return model


def _optimizer(spec: RunSpec) -> None:
    """Check the optimizer's options without a model."""
    with at(spec, "optimizer"):
        spec.optimizer.part(spec.optimizer)


def _data(spec: RunSpec, base: Path) -> None:
    with at(spec, "data"):
        found = list(islice(spec.data.part(spec.data, base).faults(), SHOWN + 1))
    if found:
        listed = [*found[:SHOWN], *(["more faults follow"] if len(found) > SHOWN else [])]
        raise SpecError([Problem(mark(spec, "data"), text) for text in listed])


def _tokenizer(spec: RunSpec, base: Path) -> None:
    with at(spec, "tokenizer"):
        tokenizer: Tokenizer = spec.tokenizer.part(spec.tokenizer, base)
    if tokenizer.needs_training:  # an untrained tokenizer does not know its vocabulary size, nor how it splits a prompt
        return
    _all([lambda: check_vocabulary(spec, tokenizer), lambda: check_prompt(spec, tokenizer)])
