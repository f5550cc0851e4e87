"""Corpora for the tests of the data engine."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from registry.contracts import Dataset


class Documents(Dataset):
    """A dataset that is a list; counts how often it was read."""

    def __init__(self, *documents: str) -> None:
        super().__init__(Dataset.Options(), Path())
        self.list = documents
        self.reads = 0

    def documents(self) -> Iterator[str]:
        self.reads += 1
        yield from self.list

    def faults(self, whole: bool = False) -> Iterator[str]:
        yield from ()

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self.list).encode()).hexdigest()
