"""Tokenises a corpus once, into a cache that its content and its tokenizer name."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from registry.contracts import Dataset, Tokenizer
from transformer_kit.data.cache import cache_folder, writing
from transformer_kit.data.pieces import cut
from transformer_kit.data.store import FORMAT, Column, TokenStore, write_manifest

BATCH_CHARACTERS = 1 << 22
BATCH_PIECES = 4096
MARK_EVERY = 4096
"""Bytes of text between two marks, at least."""
SHOWN = 20
"""Bad documents that a message names."""

log = logging.getLogger(__name__)


def prepare(
    dataset: Dataset,
    tokenizer: Tokenizer,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> TokenStore:
    """The tokens of `dataset`, from the cache when they are there and undamaged, else tokenised now.

    `cache` overrides the cache folder; `progress` is told the bytes of text done so far. Memory does not grow with
    the corpus. Raises ValueError for bad documents, all of them at once, for no text at all, and for a corpus that
    changes meanwhile; OSError when the cache cannot be written.
    """
    key = _key(dataset, tokenizer)
    folder = cache_folder(cache) / "tokens" / key
    if folder.exists():
        try:
            return TokenStore(folder)
        except ValueError as error:
            log.warning("the token cache is made anew: %s", error)
            shutil.rmtree(folder)
    check(dataset)
    with writing(folder) as unfinished:
        _write(dataset, tokenizer, unfinished, progress or (lambda done: None))
        if _key(dataset, tokenizer) != key:
            raise ValueError("the corpus was changed while it was tokenised; start again once it stays as it is")
    return TokenStore(folder)


def check(dataset: Dataset) -> None:
    """Look through a whole corpus before hours are spent on it: ValueError with everything that is wrong."""
    found = list(islice(dataset.faults(whole=True), SHOWN + 1))
    if found:
        raise ValueError("\n  ".join([*found[:SHOWN], *(["and more"] if len(found) > SHOWN else [])]))


def _key(dataset: Dataset, tokenizer: Tokenizer) -> str:
    decisive = [FORMAT, dataset.fingerprint, tokenizer.fingerprint, tokenizer.end_of_text]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:32]


def _write(dataset: Dataset, tokenizer: Tokenizer, folder: Path, progress: Callable[[int], None]) -> None:
    writer = _Writer(folder, tokenizer)
    try:
        for batch in _batches(cut(dataset.pieces())):
            writer.add(batch)
            progress(writer.text_bytes)
        writer.finish()
    finally:
        writer.close()


def _batches(pieces: Iterable[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    """As many pieces at a time as keep the tokenizer's threads busy."""
    batch: list[tuple[str, bool]] = []
    characters = 0
    for text, ends in pieces:
        batch.append((text, ends))
        characters += len(text)
        if characters >= BATCH_CHARACTERS or len(batch) >= BATCH_PIECES:
            yield batch
            batch, characters = [], 0
    yield batch


class _Writer:
    """Turns pieces of documents into the files of a `TokenStore`."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.tokens = Column(folder / "tokens.bin", "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
        self.ends = Column(folder / "documents.bin", "<u8")
        self.marks = Column(folder / "marks.bin", "<u8")
        self.marks.append([0, 0])
        self.marked = 0  # bytes of text at the last mark
        self.begin = 0  # token at which the current document began
        self.n_tokens = 0
        self.text_bytes = 0

    def add(self, batch: list[tuple[str, bool]]) -> None:
        """Tokenise and write; empty documents leave no trace."""
        encoded = iter(self.tokenizer.encode_batch([text for text, _ in batch if text]))
        stop = [] if self.tokenizer.end_of_text is None else [self.tokenizer.end_of_text]
        out, ends, marks = [], [], []
        for text, document_ends in batch:
            if text:
                out.append(next(encoded))
                self.n_tokens += len(out[-1])
                self.text_bytes += len(text) if text.isascii() else len(text.encode())
            if document_ends and self.n_tokens > self.begin:
                out.append(np.asarray(stop, dtype=np.uint32))
                self.n_tokens += len(stop)
                self.begin = self.n_tokens
                ends.append(self.n_tokens)
            if self.text_bytes - self.marked >= MARK_EVERY:
                marks += [self.n_tokens, self.text_bytes]
                self.marked = self.text_bytes
        if out:
            ids = np.concatenate(out)
            self._check(ids)
            self.tokens.append(ids)
        self.ends.append(ends)
        self.marks.append(marks)

    def finish(self) -> None:
        """Write what says that all is there; ValueError when nothing is."""
        if self.n_tokens == 0:
            raise ValueError("the corpus has no text: all its documents are empty")
        if self.text_bytes > self.marked:
            self.marks.append([self.n_tokens, self.text_bytes])
        columns = {"tokens.bin": self.tokens, "documents.bin": self.ends, "marks.bin": self.marks}
        self.close()
        write_manifest(self.folder, columns, self.tokenizer.vocab_size)

    def close(self) -> None:
        for column in (self.tokens, self.ends, self.marks):
            column.close()

    def _check(self, ids: np.ndarray) -> None:
        largest = int(ids.max(initial=0))
        if largest >= self.tokenizer.vocab_size:
            size = self.tokenizer.vocab_size
            raise ValueError(f"tokenizer '{self.tokenizer.name}' has {size} ids and returned the id {largest}")
