"""Text to token ids and back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from registry.options import Options, Slot
from registry.part import Part

Spans = tuple[NDArray[Any], Callable[[int], tuple[int, int] | None]]
"""Ids of a text, and for the index of each the characters (begin, end) that it stands for; None where unknown."""


class Tokenizer(Part, ABC):
    """Text <-> token ids. Saved as a Hugging Face `tokenizer.json`."""

    family = "tokenizer"
    vocab_size: int
    end_of_text: int | None
    """Id that ends a document; None when there is none."""
    prefix: tuple[int, ...] = ()
    """Ids that `encode` puts before every text, such as a BOS."""
    suffix: tuple[int, ...] = ()
    """Ids that `encode` puts after every text."""
    more_ends: tuple[int, ...] = ()
    """Further ids at which generation stops: those that a model's folder names."""
    invalid_byte: int | None = None
    """Id of the byte 0xFF, where bytes are decoded by runs that are valid as a whole or not at all (ByteFallback)."""
    needs_training: bool = False
    """True as long as `train` has something to learn and was not called."""

    def __init__(self, options: Any, base: Path = Path()) -> None:
        """`base` is the folder that relative paths start from."""
        self.options = options
        self.base = base

    @abstractmethod
    def train(self, texts: Iterator[str]) -> None:
        """Learn from a corpus what is to be learned; ready at once when there is nothing."""

    @abstractmethod
    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        """Ids of `text`, `prefix` and `suffix` included. ValueError for lone surrogates.

        add_special_tokens    False leaves `prefix` and `suffix` out
        split_special_tokens  True reads special tokens spelled out in the text as text
        """

    def encode_batch(
        self, texts: list[str], *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[NDArray[Any]]:
        """Ids of each text as an array of unsigned integers: `encode` for a corpus, overridden where that is faster."""
        how = {"add_special_tokens": add_special_tokens, "split_special_tokens": split_special_tokens}
        return [np.asarray(self.encode(text, **how), dtype=np.uint32) for text in texts]

    def encode_spans(self, texts: list[str], *, split_special_tokens: bool = False) -> list[Spans] | None:
        """Ids of each text without `prefix` and `suffix`, and the characters that each stands for; None when unknown.

        What is known lets a document be tokenized in parts, in bounded memory and by several threads.
        """
        return None

    @abstractmethod
    def decode(self, tokens: list[int]) -> str:
        """Text of `tokens`; bytes that are not UTF-8 become U+FFFD, special and unknown ids have no text."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into `folder`."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides what `encode` returns; keys the token cache."""

    @property
    def special_tokens(self) -> dict[int, str]:
        """The special tokens that a text may spell out, by id."""
        return {}

    @property
    def ends(self) -> tuple[int, ...]:
        """Every id at which generation stops, `end_of_text` first."""
        first = () if self.end_of_text is None else (self.end_of_text,)
        return tuple(dict.fromkeys((*first, *self.more_ends)))


TokenizerSlot = Annotated[Options, Slot("tokenizer")]
