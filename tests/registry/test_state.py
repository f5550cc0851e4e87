"""Decode states: after any append, selection, truncation and reset, tokens attend to what their own text holds."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from registry.context import Context
from registry.state import Capacity, DecodeState, KVCache, LatentCache, SlidingWindowCache, TokenCache

CPU = torch.device("cpu")
WIDTH = 2


def capacity(batch: int, max_length: int, rollback: int = 0) -> Capacity:
    return Capacity(batch, max_length, torch.float32, CPU, rollback)


class Echo:
    """A model of one layer whose tokens are their own keys: what a query attends to is told by number."""

    def __init__(self, cache: TokenCache, batch: int, max_length: int, window: int | None) -> None:
        self.cache, self.window = cache, window
        self.state = DecodeState([cache], batch, max_length)

    def __call__(self, ids: Tensor, segments: Tensor | None = None) -> list[list[set[int]]]:
        """For each row and each token of `ids` (B, T), the numbers that it attends to."""
        context = self.state.context(ids, segments)
        new = ids[..., None].float().expand(-1, -1, WIDTH)  # (B, T, WIDTH)
        shaped = new if isinstance(self.cache, LatentCache) else new[:, None]
        held, keys = self.cache.append((shaped,) * len(self.cache.tensors), context)
        dense = context.mask(keys=keys, window=self.window).dense
        dense = (dense if dense.ndim == 2 else dense[:, 0]).expand(len(ids), -1, -1)
        numbers = held[0].flatten(1, -2)[..., 0].int().tolist()  # (B, S)
        return [
            [{numbers[row][s] for s in t.nonzero().flatten().tolist()} for t in dense[row]] for row in range(len(ids))
        ]


def made(kind: str, batch: int, max_length: int, window: int, rollback: int = 0) -> Echo:
    room = capacity(batch, max_length, rollback)
    if kind == "window":
        ring = SlidingWindowCache.allocate(room, heads=1, widths=(WIDTH, WIDTH), window=window)
        return Echo(ring, batch, max_length, window)
    if kind == "latent":
        return Echo(LatentCache.allocate(room, width=WIDTH), batch, max_length, None)
    return Echo(KVCache.allocate(room, heads=1, widths=(WIDTH, WIDTH)), batch, max_length, None)


KINDS = ["all", "window", "latent"]
OPERATIONS = st.one_of(
    st.tuples(st.just("read"), st.integers(1, 4)),
    st.tuples(st.just("drop"), st.integers(1, 3)),
    st.tuples(st.just("select"), st.lists(st.integers(0, 1), min_size=2, max_size=2)),
    st.tuples(st.just("reset"), st.lists(st.booleans(), min_size=2, max_size=2)),
)


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 6), st.lists(OPERATIONS, max_size=12))
def test_tokens_attend_to_what_their_own_text_holds(kind: str, window: int, operations: list[Any]) -> None:
    """Each token is a number of its own; lists that are read, cut and copied say what it must attend to."""
    echo, number = made(kind, 2, 60, window, rollback=3), 0
    texts: list[list[int]] = [[], []]
    for name, how in operations:
        if name == "read":
            ids = torch.arange(number, number + 2 * how).view(2, how)
            number += 2 * how
            found = echo(ids)
            for row in range(2):
                for t in range(how):
                    texts[row].append(int(ids[row, t]))
                    near = texts[row][-window:] if kind == "window" else texts[row]
                    assert found[row][t] == set(near), (row, t)
        elif name == "drop":
            length = max(0, echo.state.length - how)
            dropped = echo.state.length - length
            if length == 0:
                texts = [[], []]
            elif dropped:
                texts = [text[: max(0, len(text) - dropped)] for text in texts]
            echo.state.truncate(length)
        elif name == "select":
            echo.state.select_rows(torch.tensor(how))
            texts = [list(texts[row]) for row in how]
        else:
            echo.state.reset(torch.tensor(how))
            texts = [[] if again else text for text, again in zip(texts, how, strict=True)]


def test_segments_that_begin_anew_are_told_to_each_layer() -> None:
    """What a recurrence needs: at the start of a pass, which rows begin a new text."""

    class Told(KVCache):
        rows: list[list[bool]]

        def reset(self, rows: Tensor) -> None:
            self.rows.append(rows.tolist())

    cache = Told(torch.zeros(2, 1, 9, 1))
    cache.rows = []
    state, ids = DecodeState([cache, None], 2, 9), torch.zeros(2, 2)
    state.context(ids, torch.tensor([[0, 0], [0, 1]]))
    state.context(ids, torch.tensor([[0, 0], [2, 2]]))
    state.context(ids)
    state.reset(torch.tensor([True, False]))
    state.reset()
    assert cache.rows == [[False, True], [True, False], [True, True]]


def test_sizes_are_those_of_the_tensors() -> None:
    caches = [
        KVCache.allocate(capacity(3, 10), heads=2, widths=(4, 6)),
        SlidingWindowCache.allocate(capacity(3, 10, rollback=2), heads=2, widths=(4, 6), window=5),
        LatentCache.allocate(capacity(3, 10), width=12),
    ]
    assert [cache.bytes_per_token for cache in caches] == [2 * 10 * 4, 2 * 10 * 4, 12 * 4]
    assert [cache.bytes_per_sequence for cache in caches] == [800, 7 * 80, 480]
    state = DecodeState([*caches, None], 3, 10)
    assert (state.bytes_per_token, state.bytes_per_sequence) == (208, 1840)
    assert 3 * state.bytes_per_sequence == sum(t.nbytes for cache in caches for t in cache.tensors)


def test_a_window_refuses_to_go_back_further_than_it_remembers() -> None:
    echo = made("window", 1, 30, window=4)
    echo(torch.arange(10)[None])
    with pytest.raises(ValueError, match=r"window of 4 tokens .* can go back to 9 tokens after 10, got 8; .*least 1"):
        echo.state.truncate(8)
    assert echo.state.length == 10
    echo.state.truncate(9)
    with pytest.raises(ValueError, match="can go back to 9 tokens after 10, got 8"):
        echo.state.truncate(8)
    assert echo(torch.tensor([[20]])) == [[{6, 7, 8, 20}]]


def test_truncate_refuses_what_is_not_held() -> None:
    state = made("all", 1, 9, 1).state
    state.context(torch.zeros(1, 3))
    for length in (-1, 4):
        with pytest.raises(ValueError, match=f"from 0 to 3, the number of cached tokens, got {length}"):
            state.truncate(length)


def test_a_text_that_was_divided_goes_on_after_a_truncation() -> None:
    echo = made("all", 1, 9, 1)
    echo(torch.tensor([[0, 1, 2, 3]]), torch.tensor([[5, 5, 6, 7]]))
    echo.state.truncate(2)
    context: Context = echo.state.context(torch.zeros(1, 1))
    assert context.positions.tolist() == [[2]]
    assert context.past is not None
    assert context.past.tolist() == [[5, 5, 5]]
