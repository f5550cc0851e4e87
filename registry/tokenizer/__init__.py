"""Tokenizers: text to token ids and back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from registry.options import Options, Slot
from registry.part import Part

Spans = tuple[NDArray[Any], Callable[[int], tuple[int, int] | None]]
"""Token ids of a text, and a function from a token's index to its characters (begin, end), or None if unknown."""


class Tokenizer(Part, ABC):
    """Text <-> token ids. Saved as a Hugging Face `tokenizer.json`."""

    family = "tokenizer"
    vocab_size: int
    end_of_text: int | None
    """End-of-text token id (EOS); None when there is none."""
    prefix: tuple[int, ...] = ()
    """Ids that `encode` prepends to every text, such as BOS."""
    suffix: tuple[int, ...] = ()
    """Ids that `encode` appends to every text."""
    more_ends: tuple[int, ...] = ()
    """Further stop ids for generation, from the model's folder."""
    invalid_byte: int | None = None
    """Id of the byte 0xFF for ByteFallback decoders, which decode each run of bytes as a whole or not at all."""
    needs_training: bool = False
    """True until `train` was called, if there is something to learn."""

    def __init__(self, options: Any, base: Path = Path()) -> None:
        """`base` is the folder that relative paths refer to."""
        self.options = options
        self.base = base

    @abstractmethod
    def train(self, texts: Iterator[str]) -> None:
        """Train on a corpus. Does nothing when there is nothing to learn."""

    @abstractmethod
    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        """Ids of `text`, with `prefix` and `suffix`. Raises ValueError for lone surrogates.

        add_special_tokens    False omits `prefix` and `suffix`
        split_special_tokens  True tokenizes special tokens in the text as plain text
        """

    def encode_batch(
        self, texts: list[str], *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[NDArray[Any]]:
        """Ids of each text as an array of unsigned integers. Override it where batches are faster."""
        how = {"add_special_tokens": add_special_tokens, "split_special_tokens": split_special_tokens}
        return [np.asarray(self.encode(text, **how), dtype=np.uint32) for text in texts]

    def encode_spans(self, texts: list[str], *, split_special_tokens: bool = False) -> list[Spans] | None:
        """Ids of each text without `prefix` and `suffix`, and the character span of each id; None when unknown.

        Known spans let a document be tokenized in parts, in bounded memory and by several threads.
        """
        return None

    @abstractmethod
    def decode(self, tokens: list[int]) -> str:
        """Text of `tokens`. Bytes that are not UTF-8 become U+FFFD; special and unknown ids have no text."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into `folder`."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that determines the output of `encode`; keys the token cache."""

    @property
    def special_tokens(self) -> dict[int, str]:
        """Special tokens that a text may contain, by id."""
        return {}

    @property
    def ends(self) -> tuple[int, ...]:
        """Every stop id of generation, `end_of_text` first."""
        first = () if self.end_of_text is None else (self.end_of_text,)
        return tuple(dict.fromkeys((*first, *self.more_ends)))


TokenizerSlot = Annotated[Options, Slot("tokenizer")]
