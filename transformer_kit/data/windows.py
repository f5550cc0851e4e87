"""Tokenize documents of any length in overlapping windows, with bounded memory.

At a window's edges the tokens may differ from those of the whole document. A tokenizer may prepend a space, strip, or
merge across the edge. So neighbors are joined inside their overlap, and only if their tokens agree throughout its
middle half. If they disagree, both become one window, which is tokenized again.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from registry.contracts import Tokenizer

SIZE = 1 << 16
"""Characters per window."""
OVERLAP = 1 << 11
"""Characters that a window shares with the next."""


@dataclass
class Window:
    """A range of a document."""

    text: str
    begin: int
    """Index of its first character in the document."""
    ends: bool
    """Whether the document ends with this window."""
    ids: NDArray[Any] | None = None
    span: Callable[[int], tuple[int, int] | None] | None = None
    """Maps a token's index to its characters (begin, end) in `text`."""

    @property
    def is_whole(self) -> bool:
        """Whether the window is the whole document."""
        return self.ends and not self.begin

    @property
    def end(self) -> int:
        return self.begin + len(self.text)

    def first(self, place: int) -> int:
        """Index of the first token that extends beyond character `place` of the document."""
        if place <= 0:
            return 0
        assert self.ids is not None
        return bisect_left(range(len(self.ids)), place + 1, key=lambda i: self._at(i)[1])

    def tokens(self, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """Yield (id, begin, end) of the tokens that overlap the document characters from low to high."""
        assert self.ids is not None
        for i in range(self.first(low), len(self.ids)):
            begin, end = self._at(i)
            if begin >= high:
                return
            yield int(self.ids[i]), begin, end

    def _at(self, index: int) -> tuple[int, int]:
        """The document characters (begin, end) of a token."""
        found = None if self.span is None else self.span(index)
        assert found is not None
        return self.begin + found[0], self.begin + found[1]


def windows(pieces: Iterable[tuple[str, bool]], size: int = SIZE, overlap: int = OVERLAP) -> Iterator[Window]:
    """Windows of at most `size` characters of the documents, given as (text, whether the document ends here)."""
    rest, begin = "", 0
    for text, ends in pieces:
        rest += text
        at = 0
        while len(rest) - at > size:
            yield Window(rest[at : at + size], begin + at, False)
            at += size - overlap
        rest, begin = rest[at:], begin + at
        if ends:
            yield Window(rest, begin, True)
            rest, begin = "", 0
    if rest:
        yield Window(rest, begin, True)


class Joiner:
    """Joins consecutive windows into the ids of documents."""

    def __init__(self, tokenizer: Tokenizer, *, split_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._split = split_special_tokens
        self._held: Window | None = None
        self._done = 0  # number of document characters whose ids are returned
        self._enough = 0  # size at which a grown window is tokenized again

    def read(self, batch: list[Window]) -> None:
        """Tokenize the windows of `batch` in one call."""
        whole, parts = [w for w in batch if w.is_whole], [w for w in batch if not w.is_whole]
        for window, ids in zip(whole, self._encode([w.text for w in whole]), strict=True):
            window.ids = ids
        self._read_parts(parts)

    def push(self, window: Window) -> Iterator[tuple[NDArray[Any], str]]:
        """Yield the ids that `window` settles, with their text."""
        if self._held is None:
            self._held = window
        else:
            yield from self._join(self._held, window)
        if window.ends:
            yield self._rest(self._held)
            self._held, self._done, self._enough = None, 0, 0

    def _join(self, left: Window, right: Window) -> Iterator[tuple[NDArray[Any], str]]:
        if left.ids is None and len(left.text) >= self._enough:
            self._read_parts([left])
        place = _meeting(left, right)
        if place is None:
            if left.ids is not None:
                self._enough = 2 * len(left.text)  # a document without a join point costs twice its length
            self._held = Window(left.text + right.text[left.end - right.begin :], left.begin, right.ends)
            return
        assert left.ids is not None
        yield left.ids[left.first(self._done) : left.first(place)], self._text(left, place)
        left.ids = left.span = None  # a batch may hold many windows
        self._held, self._done = right, place

    def _rest(self, last: Window) -> tuple[NDArray[Any], str]:
        if last.ids is None and self._done:
            self._read_parts([last])
        if last.ids is None:
            (last.ids,) = self._encode([last.text])
        return last.ids[last.first(self._done) :], self._text(last, last.end)

    def _text(self, window: Window, end: int) -> str:
        return window.text[self._done - window.begin : end - window.begin]

    def _encode(self, texts: list[str]) -> list[NDArray[Any]]:
        return self._tokenizer.encode_batch(texts, add_special_tokens=False, split_special_tokens=self._split)

    def _read_parts(self, parts: list[Window]) -> None:
        found = self._tokenizer.encode_spans([w.text for w in parts], split_special_tokens=self._split)
        for window, (ids, span) in zip(parts, found or (), strict=found is not None):
            window.ids, window.span = ids, span


def _meeting(left: Window, right: Window) -> int | None:
    """The character at which two overlapping windows can be joined: a token boundary where both agree."""
    if left.span is None or right.span is None:
        return None
    margin = (left.end - right.begin) // 4
    low, high = right.begin + margin, left.end - margin
    found = list(left.tokens(low, high))
    if len(found) < 2 or found != list(right.tokens(low, high)):
        return None
    for (_, _, end), (_, begin, _) in zip(found[len(found) // 2 - 1 :], found[len(found) // 2 :], strict=False):
        if begin >= end:
            return end
    return None
