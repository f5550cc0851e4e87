"""The decode loop: prompts in one pass (or in chunks), then one token for each row at a time.

With absolute positions (`sinusoidal`, `learned`), sequences longer than max_seq_len are cropped. Each token past the
limit is then chosen from the last max_seq_len tokens, in an uncompiled pass without a cache.

Letters: B prompts, T tokens of the longest, V vocab.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Required, Unpack

import torch
from torch import Tensor

from transformer_kit.generate.choose import Picker, built, sound, uniforms
from transformer_kit.generate.cuda_graph import captured
from transformer_kit.generate.given import Sampling, listed, narrowing
from transformer_kit.generate.prompts import check, check_ids, padded
from transformer_kit.generate.protocol import LanguageModel
from transformer_kit.generate.reading import Reading
from transformer_kit.generate.sliding import Window, cached


class Settings(Sampling, total=False):
    """Settings of `stream`, which documents each."""

    max_new_tokens: Required[int]
    samplers: Sequence[object]
    seed: int | None
    stop: Sequence[int]
    vocab: int | None
    chunk: int | None
    compile: bool


def generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]] | Tensor, **settings: Unpack[Settings]
) -> list[list[int]]:
    """The new ids of each prompt, without the prompt. Settings are those of `stream`."""
    rows: list[list[int]] = [[] for _ in listed(prompts)]
    for step in stream(model, prompts, **settings):
        for row, token in zip(rows, step, strict=True):
            if token is not None:
                row.append(token)
    return rows


def stream(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]] | Tensor,
    *,
    max_new_tokens: int,
    samplers: Sequence[object] = (),
    seed: int | None = None,
    stop: Sequence[int] = (),
    vocab: int | None = None,
    chunk: int | None = None,
    compile: bool = False,
    **sampling: Unpack[Sampling],
) -> Iterator[list[int | None]]:
    """The next id of each prompt, step by step; None for finished rows. Ends when all rows are finished.

    prompts   lists of ids, one for each row, or a tensor or an array of them
    samplers  options, names, or mappings as in YAML, applied in order; without them, the argmax; or by keywords:
              temperature, top_k, top_p, min_p
    seed      0 to 2^64 - 1, random by default; a row's choices depend on it, the row's index and its own prompt
    stop      ids that end a row and are not returned
    vocab     number of ids to choose from, for a tokenizer smaller than the model's vocabulary
    chunk     tokens of a prompt in one pass, to limit memory; all by default
    compile   on a GPU, compile the steps: takes tens of seconds the first time, later steps are faster

    The model is in eval mode until the last step; then its mode is restored. Do not change modules or hooks meanwhile.
    Raises ValueError for invalid prompts or settings, before it computes anything.
    """
    rows, samplers = listed(prompts), narrowing(samplers, {**sampling}, [*Settings.__annotations__])
    check(rows, max_new_tokens, model.spec.model)
    size = model.spec.model.vocab_size
    ends, limit = _ends(stop, size), _limit(vocab, size)
    _check_chunk(chunk)
    device = _device(model)
    tokens, segments = padded(rows, device)
    draws = uniforms(seed, len(rows), max_new_tokens).to(device)
    steps = _steps(model, tokens, segments, Picker(built(samplers), limit), draws, chunk, compile)
    return _until_stopped(model, steps, ends, len(rows))


def _until_stopped(
    model: LanguageModel, steps: Generator[Tensor], ends: frozenset[int], rows: int
) -> Iterator[list[int | None]]:
    going = [True] * rows
    with _evaluating(model), closing(steps):
        for chosen in _ahead(steps) if model.embedding.weight.is_cuda else steps:
            ids, wrong = chosen.tolist()
            sound(wrong)
            going = [on and token not in ends for on, token in zip(going, ids, strict=True)]
            if not any(going):
                return
            yield [token if on else None for on, token in zip(going, ids, strict=True)]


def _steps(
    model: LanguageModel,
    tokens: Tensor,
    segments: Tensor | None,
    picked: Picker,
    draws: Tensor,
    chunk: int | None,
    compile: bool,
) -> Generator[Tensor]:
    """The choices of each step, (2, B). Finished rows go on, and their choices are ignored."""
    spec, count = model.spec.model, draws.shape[1]
    near = cached(spec, tokens.shape[1], count)
    window = Window(spec.max_seq_len, tokens, segments)
    if near:
        with closing(_cached(model, tokens, segments, picked, draws[:, :near], chunk, compile)) as steps:
            for chosen in steps:
                if near < count:
                    window.add(chosen[0])
                yield chosen
    for turn in range(near, count):
        with torch.inference_mode():
            chosen = picked(window.read(model, chunk), draws[:, turn])
            window.add(chosen[0])
        yield chosen


def _cached(
    model: LanguageModel,
    tokens: Tensor,
    segments: Tensor | None,
    picked: Picker,
    draws: Tensor,
    chunk: int | None,
    compile: bool,
) -> Generator[Tensor]:
    """Like `_steps`, for sequences that fit into the context."""
    width, count = tokens.shape[1], draws.shape[1]
    # Leave inference mode before each yield, since the caller's code runs then.
    with torch.inference_mode():
        reading = Reading(model, tokens, segments, width + count - 1, chunk or width)
        chosen = picked(reading.read(), draws[:, 0])
        replay = captured(model, reading.state, picked, draws, chosen, compile)
    yield chosen
    if count == 1:
        return
    for turn in range(1, count):
        with torch.inference_mode():
            chosen = picked(reading.follow(chosen[0]), draws[:, turn]) if replay is None else replay()
        yield chosen


def _ahead(steps: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same choices, with the device one step ahead of the caller."""
    previous = next(steps)
    for chosen in steps:
        yield previous
        previous = chosen
    yield previous


@contextmanager
def _evaluating(model: LanguageModel) -> Iterator[None]:
    """Eval mode inside; on exit each module's mode is restored."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _device(model: LanguageModel) -> torch.device:
    device = model.embedding.weight.device
    if device.type == "meta":
        raise ValueError("a model on the meta device has no weights to generate with; load or materialize it first")
    return device


def _ends(stop: Sequence[int], vocab_size: int) -> frozenset[int]:
    if isinstance(stop, (int, str)):
        raise ValueError(f"stop must be a list of token ids, got {stop!r}")
    check_ids(stop, vocab_size, "stop")
    return frozenset(stop)


def _check_chunk(chunk: int | None) -> None:
    if chunk is not None and (not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"chunk must be a whole number, at least 1, got {chunk!r}")


def _limit(vocab: int | None, vocab_size: int) -> int:
    if vocab is None:
        return vocab_size
    if not isinstance(vocab, int) or vocab < 1:
        raise ValueError(f"vocab must be a whole number, at least 1, got {vocab!r}")
    return min(vocab, vocab_size)
