"""Positions, segments and masks agree with what a reader of their definitions would compute by hand."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from registry.context import PADDING, Context, Mask
from registry.state import DecodeState

CPU = torch.device("cpu")


@st.composite
def segmented(draw: st.DrawFn) -> Tensor:
    """Rows of segments (B, T), in any order, padding among them."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    row = st.lists(st.integers(PADDING, 2), min_size=length, max_size=length)
    return torch.tensor([draw(row) for _ in range(rows)])


@st.composite
def pieces(draw: st.DrawFn, length: int) -> list[int]:
    """Lengths of chunks that make up `length`."""
    left, sizes = length, []
    while left:
        sizes.append(draw(st.integers(1, left)))
        left -= sizes[-1]
    return sizes


def by_hand(segments: Tensor) -> list[list[int]]:
    """Each token's distance from the first of its run."""
    out = []
    for row in segments.tolist():
        places: list[int] = []
        for i, segment in enumerate(row):
            places.append(places[-1] + 1 if i and row[i - 1] == segment else 0)
        out.append(places)
    return out


@given(segmented())
def test_positions_count_from_the_first_token_of_a_segment(segments: Tensor) -> None:
    assert Context.of(segments, segments).positions.tolist() == by_hand(segments)


@given(st.data(), segmented())
def test_chunks_see_the_same_positions_and_past_as_one_pass(data: st.DataObject, segments: Tensor) -> None:
    rows, length = segments.shape
    whole = Context.of(segments, segments)
    state = DecodeState([], rows, length + data.draw(st.integers(0, 2)))
    positions, start = [], 0
    for piece in segments.split(data.draw(pieces(length)), dim=1):
        context = state.context(piece, piece)
        assert (context.start, context.length) == (start, piece.shape[1])
        assert torch.equal(context.segments, piece)
        start += piece.shape[1]
        assert torch.equal(context.past, segments[:, :start])
        positions.append(context.positions)
    assert torch.equal(torch.cat(positions, dim=1), whole.positions)


@given(st.data(), segmented())
def test_without_segments_tokens_continue_what_was_last(data: st.DataObject, segments: Tensor) -> None:
    rows, length = segments.shape
    more = data.draw(st.integers(1, 4))
    state = DecodeState([], rows, length + more)
    state.context(segments, segments)
    follow = [state.context(torch.zeros(rows, n)) for n in data.draw(pieces(more))]
    extended = torch.cat([segments, segments[:, -1:].expand(-1, more)], dim=1)
    assert torch.cat([c.positions for c in follow], dim=1).tolist() == [row[length:] for row in by_hand(extended)]
    assert torch.equal(follow[-1].past, extended)


@given(st.data(), segmented())
def test_segments_may_begin_after_an_undivided_past(data: st.DataObject, segments: Tensor) -> None:
    rows, length = segments.shape
    before = data.draw(st.integers(1, 4))
    state = DecodeState([], rows, before + length)
    assert state.context(torch.zeros(rows, before)).positions.tolist() == list(range(before))
    context = state.context(segments, segments)
    extended = torch.cat([torch.zeros(rows, before, dtype=torch.long), segments], dim=1)
    assert context.positions.tolist() == [row[before:] for row in by_hand(extended)]
    assert torch.equal(context.past, extended)


def test_undivided_rows_share_their_positions() -> None:
    assert Context.of(torch.zeros(2, 4)).positions.tolist() == [0, 1, 2, 3]
    state = DecodeState([], 2, 6)
    state.context(torch.zeros(2, 4))
    assert state.context(torch.zeros(2, 2)).positions.tolist() == [4, 5]


def test_left_padding_leaves_each_text_its_own_positions() -> None:
    segments = torch.tensor([[PADDING, PADDING, 0, 0], [0, 0, 0, 0]])
    assert Context.of(segments, segments).positions[:, 2:].tolist() == [[0, 1], [2, 3]]


def test_state_refuses_more_than_it_holds_and_stays_as_it_was() -> None:
    state = DecodeState([], 1, 3)
    state.context(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="holds 3 tokens, got 4"):
        state.context(torch.zeros(1, 2))
    assert state.length == 2
    with pytest.raises(ValueError, match="for 1 rows, got 2"):
        state.context(torch.zeros(2, 1))


def test_cached_computes_once() -> None:
    calls: list[int] = []
    context = Context.of(torch.zeros(1, 1))
    for _ in range(2):
        assert context.cached("key", lambda: calls.append(1) or "value") == "value"
    assert calls == [1]


def naive(mask: Mask, rows: int) -> Tensor:
    """What `Mask` says in words, as three loops: (B, T, S)."""
    keys = list(range(mask.keys)) if isinstance(mask.keys, int) else mask.keys.tolist()
    seen = torch.zeros(rows, mask.length, len(keys), dtype=torch.bool)
    for b in range(rows):
        for t in range(mask.length):
            for s, key in enumerate(keys):
                behind = mask.start + t - key
                near = mask.window is None or abs(behind) < mask.window
                alike = mask.query_segments is None or mask.query_segments[b, t] == mask.key_segments[b, s]
                seen[b, t, s] = (behind >= 0 or not mask.causal) and near and bool(alike)
    return seen


@st.composite
def masks(draw: st.DrawFn) -> tuple[Mask, int]:
    """A mask over keys in a row, as many as there are so far or fewer or more, and its number of rows."""
    start, length, rows = draw(st.integers(0, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 2))
    keys = draw(st.one_of(st.just(start + length), st.integers(1, 12)))
    query = key = None
    if draw(st.booleans()):
        query = torch.tensor([[draw(st.integers(PADDING, 1)) for _ in range(length)] for _ in range(rows)])
        key = torch.tensor([[draw(st.integers(PADDING, 1)) for _ in range(keys)] for _ in range(rows)])
    window = draw(st.one_of(st.none(), st.integers(1, 12)))
    return Mask(start, length, keys, draw(st.booleans()), window, CPU, query, key), rows


@given(masks())
def test_dense_is_what_the_description_says(drawn: tuple[Mask, int]) -> None:
    mask, rows = drawn
    dense = mask.dense if mask.dense.ndim == 2 else mask.dense.squeeze(1)
    assert torch.equal(dense.expand(rows, -1, -1), naive(mask, rows))


@given(masks(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_what_is_added_hides_what_is_not_seen(drawn: tuple[Mask, int], dtype: torch.dtype) -> None:
    added = drawn[0].added(dtype)
    assert added.dtype == dtype
    assert torch.equal(added == 0, drawn[0].dense)
    assert torch.equal(added == float("-inf"), ~drawn[0].dense)
    assert drawn[0].added(dtype) is added
    assert torch.equal(drawn[0].hidden, ~drawn[0].dense)


def shortcuts_hold(mask: Mask) -> bool:
    square = torch.ones(mask.length, mask.length, dtype=torch.bool).tril()
    full = not mask.is_full or bool(mask.dense.all())
    return full and (not mask.is_causal or torch.equal(mask.dense, square))


def test_shortcuts_hold_only_where_the_dense_mask_agrees() -> None:
    """Over every small case: chance seldom meets the few where a shortcut is nearly right."""
    cases = product(range(4), range(1, 4), range(1, 8), (True, False), (None, 1, 2, 3, 5, 7))
    assert not [case for case in cases if not shortcuts_hold(Mask(*case, CPU))]


@given(masks())
def test_shortcuts_hold_with_segments(drawn: tuple[Mask, int]) -> None:
    assert shortcuts_hold(drawn[0])


@given(st.integers(1, 9), st.one_of(st.none(), st.integers(1, 12)), st.booleans())
def test_shortcuts_are_taken_where_they_can_be(length: int, window: int | None, causal: bool) -> None:
    unbounded = window is None or window >= length
    assert Mask(0, length, length, True, window, CPU).is_causal == unbounded
    assert Mask(length - 1, 1, length, causal, window, CPU).is_full == unbounded
    assert Mask(0, length, length, False, window, CPU).is_full == unbounded


@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 6), st.randoms(use_true_random=False))
def test_ring_keys_are_known_by_their_index(start: int, length: int, window: int, random: object) -> None:
    """A ring holds the last `window` tokens in any order; a chunk also brings its own keys."""
    first = max(0, start + 1 - window)
    index = list(range(first, start + length))
    random.shuffle(index)  # type: ignore[attr-defined]
    mask = Mask(start, length, torch.tensor(index), True, window, CPU)
    assert torch.equal(mask.dense, naive(mask, 1)[0])
    assert not mask.is_causal
    if mask.is_full:
        assert mask.dense.all()
    assert mask.is_full or length > 1 or len(index) > window


@given(segmented())
def test_ring_keys_find_their_segments(segments: Tensor) -> None:
    context = Context.of(segments, segments)
    index = torch.arange(segments.shape[1]).flip(0)
    mask = context.mask(window=3, keys=index)
    assert torch.equal(mask.dense.squeeze(1), naive(mask, len(segments)))
    assert torch.equal(mask.key_segments, segments.flip(1))


def test_every_token_sees_itself_padding_too() -> None:
    segments = torch.tensor([[PADDING, PADDING, 0, 0, 1]])
    mask = Context.of(segments, segments).mask(window=2, keys=5)
    assert mask.dense[0, 0].diagonal().all()
    assert not mask.dense[0, 0, 2, :2].any()
