"""Sources of documents for training."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from registry.options import Options, Slot
from registry.part import Part


class Dataset(Part, ABC):
    """A corpus: a source of documents. All datasets share tokenizing and batching."""

    family = "dataset"

    def __init__(self, options: Any, base: Path) -> None:
        """`base` is the folder that relative paths refer to."""
        self.options = options
        self.base = base

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Yield every document, always in the same order. ValueError names a bad file and line."""

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """Yield (text, whether the document ends here). Override it where a document may exceed memory."""
        return ((document, True) for document in self.documents())

    def faults(self, whole: bool = False) -> Iterator[str]:
        """Yield one message per bad document, with file and line. `whole` checks the entire corpus; without it, the
        check takes about a second.
        """
        try:
            next(iter(self.pieces()), None)
        except ValueError as error:
            yield str(error)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the content; keys the token cache. A large corpus may be hashed by samples, sizes and times."""


DatasetSlot = Annotated[Options, Slot("dataset")]
