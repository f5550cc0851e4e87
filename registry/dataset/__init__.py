"""Sources of documents for training."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from registry.options import Options, Slot
from registry.part import Part


class Dataset(Part, ABC):
    """A corpus: a source of documents. Tokenizing and batching are the same for all datasets."""

    family = "dataset"

    def __init__(self, options: Any, base: Path) -> None:
        """`base` is the folder that relative paths start from."""
        self.options = options
        self.base = base

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Every document, one at a time, in an order that does not change. ValueError names a bad file and line."""

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The documents as (text, whether the document ends here): overridden where one may not fit into memory."""
        return ((document, True) for document in self.documents())

    def faults(self, whole: bool = False) -> Iterator[str]:
        """What is wrong with the corpus, a line for each document, file and line named: with all of it if `whole`,
        else with what can be looked at in a second.
        """
        try:
            next(iter(self.pieces()), None)
        except ValueError as error:
            yield str(error)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the content; keys the token cache. Of a large corpus samples of it will do, with sizes and times."""


DatasetSlot = Annotated[Options, Slot("dataset")]
