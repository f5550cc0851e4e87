"""Behaviors of every model, whatever its parts: each function takes a model and raises AssertionError if it fails.

    for behavior in BEHAVIORS:
        behavior(model)

Use models with strong weights (`strong_init`) in evaluation mode: small weights hide wrong results.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from registry.context import PADDING
from registry.texts import TextGrew
from transformer_kit.generate.reading import settled
from transformer_kit.model.model import Model
from transformer_kit.testing.carriers import LENGTH, agree, tokens
from transformer_kit.testing.state_behaviors import rows_begun_again, rows_selected, tokens_forgotten
from transformer_kit.transform.static_cache import StaticState, has_static_form

Behavior = Callable[[Model], None]


@torch.no_grad()
def causal(model: Model) -> None:
    """Logits do not depend on later tokens."""
    ids = tokens(model)
    expected = model(ids).logits
    for t in (1, LENGTH // 2, LENGTH - 1):
        other = ids.clone()
        other[:, t:] = (other[:, t:] + 1) % model.spec.model.vocab_size
        agree(model(other).logits[:, :t], expected[:, :t], f"logits before token {t} after changing what follows")


@torch.no_grad()
def rows_independent(model: Model) -> None:
    """A row's logits do not depend on the other rows."""
    ids = tokens(model)
    expected = model(ids).logits
    for row in range(len(ids)):
        agree(model(ids[row : row + 1]).logits, expected[row : row + 1], f"row {row} alone")


@torch.no_grad()
def decodes_as_it_reads(model: Model) -> None:
    """Chunks of any size, or single tokens, give the logits of one pass."""
    ids = tokens(model)
    expected = model(ids).logits
    for chunks, spare in (
        ([1, 1, 1, 5, 1, 4], 0),
        ([3, *[1] * (LENGTH - 3)], 5),
        ([LENGTH - 1, 1], 0),
        ([LENGTH], 5),
        ([5, 4, 4], 0),
        ([2, 7, 1, 3], 5),
    ):
        got = in_chunks(model, ids, chunks, spare=spare)
        agree(got, expected, f"logits of chunks {_taken(chunks)} with room for {LENGTH + spare}")
    state = model.state(len(ids), LENGTH)
    agree(model(ids, state=state, last=True).logits, expected[:, -1:], "logits of the last token alone")


@torch.no_grad()
def decodes_with_a_static_cache(model: Model) -> None:
    """Static-shape decode steps, as captured in CUDA graphs, give the logits of one pass."""
    ids = tokens(model)
    segments = torch.full_like(ids, 3)
    segments[1, :1] = PADDING
    prompt = 2  # so that no sliding window is full yet
    for divided in (None, segments):
        state, expected = model.state(len(ids), LENGTH), model(ids, segments=divided).logits
        model(ids[:, :prompt], segments=None if divided is None else divided[:, :prompt], state=state)
        if not has_static_form(state):
            return
        for max_length in (LENGTH - 3, LENGTH):
            static = StaticState(state, max_length)
            for t in range(state.length, max_length):
                got = model(ids[:, t : t + 1], state=static).logits
                agree(got, expected[:, t : t + 1], f"logits of token {t} with a static cache")
                static.cache_position += 1
                static.length = state.length = state.written = t + 1


@torch.no_grad()
def padded_as_alone(model: Model) -> None:
    """A sequence with padding on its left gives the logits it gives alone, in one pass or in chunks."""
    ids = tokens(model)
    pads = [0, 3, 7]
    segments = torch.zeros_like(ids)
    for row, pad in enumerate(pads):
        segments[row, :pad] = PADDING
    alone = [model(ids[row : row + 1, pad:]).logits for row, pad in enumerate(pads)]
    for chunks in ([], [LENGTH - 1, 1], [2, 4, 3, 4]):
        got = model(ids, segments=segments).logits if not chunks else in_chunks(model, ids, chunks, segments)
        for row, pad in enumerate(pads):
            agree(got[row : row + 1, pad:], alone[row], f"row with {pad} of padding, chunks {chunks or 'none'}")
    if not settled(model):
        return  # it refuses to continue where a sequence outgrows its first length
    continued = _prefilled(model, ids, segments, 8)  # the segments of the prompt alone, then nothing but ids
    for row, pad in enumerate(pads):
        agree(continued[row : row + 1, pad:], alone[row], f"row with {pad} of padding, continued without segments")


@torch.no_grad()
def packed_as_separate(model: Model) -> None:
    """Documents packed into one row give the logits of separate rows, in one pass or in chunks."""
    ids = tokens(model)
    ends = [[4, 5, LENGTH], [7, LENGTH], [LENGTH]]
    segments = torch.stack([_numbered(e) for e in ends])
    places = [(row, slice(b, e)) for row, cuts in enumerate(ends) for b, e in zip([0, *cuts], cuts, strict=False)]
    apart = [model(ids[row : row + 1, here]).logits for row, here in places]
    for chunks in ([], [1, 1, 1, 1, 2, 1, 1, 1, 4], [6, 1, 6]):
        if chunks and not settled(model):
            continue  # a document's final length is unknown in its first chunk
        got = model(ids, segments=segments).logits if not chunks else in_chunks(model, ids, chunks, segments)
        for (row, here), expected in zip(places, apart, strict=True):
            what = f"document [{here.start}:{here.stop}] of row {row}, chunks {chunks or 'none'}"
            agree(got[row : row + 1, here], expected, what)


@torch.no_grad()
def generates_as_it_reads(model: Model) -> None:
    """Greedy generation gives the most likely next token of the whole sequence, at any length."""
    prompts = [[3, 1], [2, 5, 7, 1, 4], [6]]
    new = 20  # past any original_max_seq_len of the examples
    expected = [list(prompt) for prompt in prompts]
    for text in expected:
        for _ in range(new):
            text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
    for chunk in (None, 2):
        got = model.generate(prompts, max_new_tokens=new, chunk=chunk)
        for row, (prompt, text) in enumerate(zip(prompts, expected, strict=True)):
            assert got[row] == text[len(prompt) :], f"row {row}, chunk {chunk}: {got[row]}, not {text[len(prompt) :]}"


def outgrows(model: Model) -> bool:
    """Whether a sequence in chunks is refused once it is longer than its first chunk."""
    ids = tokens(model)
    state = model.state(len(ids), LENGTH)
    try:
        for t in range(LENGTH):
            model(ids[:, t : t + 1], state=state)
    except TextGrew:
        return True
    return False


BEHAVIORS: tuple[Behavior, ...] = (
    causal,
    rows_independent,
    decodes_as_it_reads,
    decodes_with_a_static_cache,
    padded_as_alone,
    packed_as_separate,
    rows_selected,
    tokens_forgotten,
    rows_begun_again,
)
"""Behaviors of every language model of the kit."""

UNSETTLED: tuple[Behavior, ...] = (
    causal,
    rows_independent,
    decodes_as_it_reads,
    padded_as_alone,
    packed_as_separate,
    generates_as_it_reads,
)
"""The same where positions depend on the length of the sequence (`Position.settled` is False), with chunked sequences
of known length."""


def expected_of(model: Model) -> tuple[Behavior, ...]:
    """The behaviors that this model promises."""
    return BEHAVIORS if settled(model) else UNSETTLED


def in_chunks(
    model: Model, ids: Tensor, chunks: Sequence[int], segments: Tensor | None = None, spare: int = 0
) -> Tensor:
    """Logits (B, T, V) of `ids` through a decode state with spare capacity, in chunks of these sizes."""
    state = model.state(len(ids), LENGTH + spare)
    if not settled(model):
        texts = torch.zeros_like(ids) if segments is None else segments
        state.foreseen = (texts != PADDING).sum(dim=1, keepdim=True)
    found, begin = [], 0
    for size in _taken(chunks):
        here = slice(begin, begin + size)
        part = None if segments is None else segments[:, here]
        found.append(model(ids[:, here], segments=part, state=state).logits)
        begin += size
    return torch.cat(found, dim=1)


def _prefilled(model: Model, ids: Tensor, segments: Tensor, prompt: int) -> Tensor:
    state = model.state(len(ids), LENGTH)
    found = [model(ids[:, :prompt], segments=segments[:, :prompt], state=state).logits]
    found += [model(ids[:, t : t + 1], state=state).logits for t in range(prompt, LENGTH)]
    return torch.cat(found, dim=1)


def _taken(chunks: Sequence[int]) -> list[int]:
    """The chunks that fit into the test's length."""
    taken: list[int] = []
    for size in chunks:
        if sum(taken) + size <= LENGTH:
            taken.append(size)
    return taken


def _numbered(ends: list[int]) -> Tensor:
    segments = torch.zeros(LENGTH, dtype=torch.long)
    for end in ends[:-1]:
        segments[end:] += 1
    return segments
