"""Bytes of UTF-8 (Xue et al. 2021, ByT5, arXiv:2105.13626): 256 byte values and an end of text; no training."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers

from registry.contracts import Spans, Tokenizer
from registry.core import register
from registry.tokenizer._given import check_text, check_unicode, ids_of
from registry.tokenizer._shared import END_OF_TEXT, digest, write


@register
class Bytes(Tokenizer):
    """Each byte is a token: ids 0 to 255 are byte values, 256 is end of text."""

    vocab_size = 257
    end_of_text = 256

    def train(self, texts: Iterator[str]) -> None:
        """Do nothing: there is nothing to learn."""

    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        return self._ids(text, split_special_tokens).tolist()

    def encode_batch(
        self, texts: list[str], *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[NDArray[Any]]:
        return [self._ids(text, split_special_tokens) for text in texts]

    def encode_spans(self, texts: list[str], *, split_special_tokens: bool = False) -> list[Spans]:
        return [_with_spans(text, self._ids(text, split_special_tokens)) for text in texts]

    def decode(self, tokens: list[int]) -> str:
        return bytes(t for t in ids_of(tokens) if t < 256).decode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        write(folder, _as_file(), END_OF_TEXT)

    @property
    def fingerprint(self) -> str:
        return digest(_as_file())

    @property
    def special_tokens(self) -> dict[int, str]:
        return {Bytes.end_of_text: END_OF_TEXT}

    def _ids(self, text: str, split_special_tokens: bool) -> NDArray[Any]:
        check_text(text)
        if split_special_tokens or END_OF_TEXT not in text:
            return np.frombuffer(_utf8(text), dtype=np.uint8)
        parts: list[NDArray[Any]] = []
        for between in text.split(END_OF_TEXT):
            parts += [np.array([self.end_of_text], dtype=np.uint16), np.frombuffer(_utf8(between), dtype=np.uint8)]
        return np.concatenate(parts[1:])


def _with_spans(text: str, ids: NDArray[Any]) -> Spans:
    """Ids with character spans: a byte's span is its character, an end of text's span is its whole spelling."""

    @cache  # most windows need the spans of few tokens, some of none
    def places() -> NDArray[Any]:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
        character = np.repeat(np.arange(len(points), dtype=np.int32), sizes)  # of each byte
        widths = np.where(ids == Bytes.end_of_text, len(END_OF_TEXT), 1)
        last = np.cumsum(widths) - 1  # byte of each token
        return np.stack([character[last - widths + 1], character[last] + 1], axis=1)

    return ids, lambda i: tuple(places()[i].tolist())


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        check_unicode(text)
        raise


@cache
def _as_file() -> tokenizers.Tokenizer:
    """The same tokenizer as a `tokenizers` object: a BPE without merges whose alphabet stands for the bytes."""
    core = tokenizers.Tokenizer(models.BPE(vocab={c: b for b, c in enumerate(_alphabet())}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([END_OF_TEXT])
    return core


def _alphabet() -> list[str]:
    """The character of each byte in byte-level files: the byte itself if printable, else one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(b if b in printable else next(others)) for b in range(256)]
