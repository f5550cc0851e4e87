"""Tokenize a corpus once, into a cache that is keyed by its content and its tokenizer."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.contracts import Dataset, Tokenizer
from transformer_kit.data.cache import cache_folder, writing
from transformer_kit.data.store import FORMAT, Column, TokenStore, write_manifest
from transformer_kit.data.windows import Joiner, Window, windows

BATCH_CHARACTERS = 1 << 22
BATCH_WINDOWS = 4096
MARK_EVERY = 4096
"""Minimum bytes of text between two marks."""
SHOWN = 20
"""Maximum number of bad documents in a message."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How the corpus is tokenized."""

    add_special_tokens: bool = True
    """Whether each document gets the tokenizer's prefix and suffix, such as BOS."""
    split_special_tokens: bool = False
    """Whether special tokens in the corpus are tokenized as plain text."""


def prepare(
    dataset: Dataset,
    tokenizer: Tokenizer,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
    reading: Reading = Reading(),
) -> TokenStore:
    """The tokens of `dataset`, from the cache if it is valid, else tokenized now.

    `cache` overrides the cache folder. `progress` receives the bytes of text done so far. Memory does not grow with the
    corpus. Raises ValueError for bad documents (all at once), for an empty corpus, and for a corpus that changes
    meanwhile. Raises OSError when the cache cannot be written.
    """
    key = _key(dataset, tokenizer, reading)
    folder = cache_folder(cache) / "tokens" / key
    if folder.exists():
        try:
            return TokenStore(folder)
        except ValueError as error:
            log.warning("rebuilding the token cache: %s", error)
            shutil.rmtree(folder)
    check(dataset)
    with writing(folder) as unfinished:
        _write(dataset, tokenizer, unfinished, progress or (lambda done: None), reading)
        if _key(dataset, tokenizer, reading) != key:
            raise ValueError("the corpus changed while it was tokenized; start again when it is complete")
    return TokenStore(folder)


def check(dataset: Dataset) -> None:
    """Check a whole corpus before tokenizing it. Raises ValueError with everything that is wrong."""
    found = list(islice(dataset.faults(whole=True), SHOWN + 1))
    if found:
        raise ValueError("\n  ".join([*found[:SHOWN], *(["and more"] if len(found) > SHOWN else [])]))


def _key(dataset: Dataset, tokenizer: Tokenizer, reading: Reading) -> str:
    decisive = [FORMAT, dataset.fingerprint, tokenizer.fingerprint, tokenizer.end_of_text, astuple(reading)]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:32]


def _write(
    dataset: Dataset, tokenizer: Tokenizer, folder: Path, progress: Callable[[int], None], reading: Reading
) -> None:
    writer = _Writer(folder, tokenizer, reading)
    try:
        for batch in _batches(windows(dataset.pieces())):
            writer.add(batch)
            progress(writer.text_bytes)
        writer.finish()
    finally:
        writer.close()


def _batches(found: Iterable[Window]) -> Iterator[list[Window]]:
    """Batches of windows, large enough to keep the tokenizer's threads busy, without empty documents."""
    batch: list[Window] = []
    characters = 0
    for window in found:
        if window.text or not window.is_whole:
            batch.append(window)
            characters += len(window.text)
        if characters >= BATCH_CHARACTERS or len(batch) >= BATCH_WINDOWS:
            yield batch
            batch, characters = [], 0
    yield batch


class _Writer:
    """Writes windows of documents to the files of a `TokenStore`."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, reading: Reading) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.joiner = Joiner(tokenizer, split_special_tokens=reading.split_special_tokens)
        self.prefix, self.suffix = (tokenizer.prefix, tokenizer.suffix) if reading.add_special_tokens else ((), ())
        self.spelled = np.zeros(tokenizer.vocab_size, dtype=np.int64)  # occurrences of each special token
        self.special = np.zeros(tokenizer.vocab_size, dtype=bool)
        self.special[list(tokenizer.special_tokens)] = True
        self.tokens = Column(folder / "tokens.bin", "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
        self.ends = Column(folder / "documents.bin", "<u8")
        self.marks = Column(folder / "marks.bin", "<u8")
        self.waiting = [np.zeros(0, dtype=self.tokens.dtype)]  # tokens to be written
        self.marks.append([0, 0])
        self.marked = (0, 0)  # tokens and bytes of text at the last mark
        self.begin = 0  # token at which the current document began
        self.last = -1  # the latest token
        self.n_tokens = 0
        self.text_bytes = 0

    def add(self, batch: list[Window]) -> None:
        """Tokenize and write a batch; documents without tokens are dropped."""
        self.joiner.read(batch)
        ends: list[int] = []
        for window in batch:
            for ids, text in self.joiner.push(window):
                self._text(ids, text)
            if window.ends and self.n_tokens > self.begin:
                self._end()
                ends.append(self.n_tokens)
        self.tokens.append(np.concatenate(self.waiting))
        self.waiting = [np.zeros(0, dtype=self.tokens.dtype)]
        self.ends.append(ends)

    def finish(self) -> None:
        """Write the manifest, which marks the store complete. Raises ValueError when there are no tokens."""
        if self.n_tokens == 0:
            raise ValueError("the corpus has no text: all its documents are empty")
        if self.n_tokens > self.marked[0]:
            self.marks.append([self.n_tokens, self.text_bytes])
        columns = {"tokens.bin": self.tokens, "documents.bin": self.ends, "marks.bin": self.marks}
        self.close()
        names = self.tokenizer.special_tokens
        spelled = {names[i]: int(self.spelled[i]) for i in np.flatnonzero(self.spelled).tolist()}
        write_manifest(self.folder, columns, self.tokenizer.vocab_size, spelled)

    def close(self) -> None:
        for column in (self.tokens, self.ends, self.marks):
            column.close()

    def _text(self, ids: NDArray[Any], text: str) -> None:
        self.text_bytes += len(text) if text.isascii() else len(text.encode())
        if not len(ids):
            return
        if self.n_tokens == self.begin:
            self._put(self.prefix)
        self._check(ids)
        self._put(ids)
        found = ids[self.special[ids]]
        if len(found):
            np.add.at(self.spelled, found, 1)
        if self.text_bytes - self.marked[1] >= MARK_EVERY:
            self.marked = (self.n_tokens, self.text_bytes)
            self.marks.append([*self.marked])

    def _end(self) -> None:
        """End a document, unless its text or the tokenizer has already ended it."""
        self._put(self.suffix)
        stop = self.tokenizer.end_of_text
        if stop is not None and self.last != stop:
            self._put([stop])
        self.begin = self.n_tokens

    def _put(self, ids: NDArray[Any] | Sequence[int]) -> None:
        if len(ids):
            self.waiting.append(np.asarray(ids, dtype=self.tokens.dtype))
            self.n_tokens += len(ids)
            self.last = int(ids[-1])

    def _check(self, ids: np.ndarray) -> None:
        largest = int(ids.max(initial=0))
        if largest >= self.tokenizer.vocab_size:
            size = self.tokenizer.vocab_size
            raise ValueError(f"tokenizer '{self.tokenizer.name}' has {size} ids and returned the id {largest}")
