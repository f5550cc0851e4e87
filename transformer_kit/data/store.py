"""A tokenized corpus on disk: token ids, document ends, and the bytes of text that the tokens represent.

    tokens.bin      the ids, one after another, uint16 or uint32
    documents.bin   for each document the number of tokens up to its end, uint64
    marks.bin       pairs (tokens, bytes of text) up to sampled positions of the corpus, uint64
    manifest.json   sizes, types, checksums; written last

All integers are little-endian. The files are memory-mapped, so a corpus may exceed memory.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry import untrusted

FORMAT = 3
MANIFEST = "manifest.json"
MAX_MANIFEST = 256 * 2**20
"""Maximum bytes of a manifest; a block takes about 12."""
BLOCK = 1 << 24
"""Bytes per checksum."""
CHECKED = 64
"""Maximum number of blocks whose checksums are verified when a file is opened."""


class TokenStore:
    """A corpus that `prepare` tokenized. Opening raises ValueError if a file is damaged."""

    tokens: NDArray[Any]
    """All ids (N,), memory-mapped."""
    ends: NDArray[Any]
    """Number of tokens up to the end of each document (documents,), increasing."""
    vocab_size: int
    """Vocabulary size of the tokenizer."""
    spelled: dict[str, int]
    """Occurrences of each special token in the text itself."""

    def __init__(self, folder: Path) -> None:
        manifest = _manifest(folder / MANIFEST)
        for name, file in manifest["files"].items():
            _check(folder / name, file["size"], file["checksums"])
        self.vocab_size, self.spelled = manifest["vocab_size"], manifest["spelled"]
        self.tokens = _map(folder / "tokens.bin", manifest["dtype"])
        self.ends = _map(folder / "documents.bin", "<u8")
        self._marks = _map(folder / "marks.bin", "<u8").reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token of the corpus; end-of-text tokens count as tokens."""
        return self.bytes_between(0, len(self)) / len(self)

    def bytes_between(self, begin: int, end: int) -> float:
        """Bytes of text of tokens [begin, end), interpolated between marks that are about 4 KiB apart."""
        return self._bytes_before(end) - self._bytes_before(begin)

    def document_of(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Document index of the tokens at `index`, any shape. An end-of-text token belongs to its document."""
        return np.searchsorted(self.ends, index.astype(np.uint64), side="right")

    def _bytes_before(self, token: int) -> float:
        right = max(1, int(np.searchsorted(self._marks[:, 0], np.uint64(token))))
        (low, start), (high, stop) = self._marks[right - 1].tolist(), self._marks[right].tolist()
        return start + (stop - start) * (token - low) / (high - low)


class Column:
    """Appends arrays of one type to a file and computes the checksums of its blocks."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.checksums: list[int] = []
        self.size = 0
        self._file = path.open("wb")

    def append(self, values: NDArray[Any] | list[int]) -> None:
        """Append `values`, which must fit the column's type."""
        data = np.ascontiguousarray(values, dtype=self.dtype).view(np.uint8).data
        self._file.write(data)
        while data.nbytes:
            room = BLOCK - self.size % BLOCK
            if room == BLOCK:
                self.checksums.append(0)
            self.checksums[-1] = zlib.crc32(data[:room], self.checksums[-1])
            self.size += min(room, data.nbytes)
            data = data[room:]

    def close(self) -> None:
        self._file.close()


def write_manifest(folder: Path, columns: dict[str, Column], vocab_size: int, spelled: dict[str, int]) -> None:
    """Write the manifest, which marks the columns complete."""
    content = {
        "format": FORMAT,
        "vocab_size": vocab_size,
        "spelled": spelled,
        "dtype": columns["tokens.bin"].dtype.str,
        "files": {name: {"size": c.size, "checksums": c.checksums} for name, c in columns.items()},
    }
    page = {"content": content, "sha256": _digest(content)}
    (folder / MANIFEST).write_text(json.dumps(page), "utf-8")


def _map(path: Path, dtype: str) -> NDArray[Any]:
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        page = untrusted.mapping(path, MAX_MANIFEST)
        content, digest = page["content"], page["sha256"]
    except (TypeError, KeyError):
        raise ValueError(f"{path}: is damaged") from None
    if _digest(content) != digest or content["format"] != FORMAT:
        raise ValueError(f"{path}: is damaged")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check(path: Path, size: int, checksums: list[int]) -> None:
    try:
        with path.open("rb") as file:
            if path.stat().st_size != size:
                raise ValueError(f"{path}: must have {size} bytes, got {path.stat().st_size}")
            for number in _sample(len(checksums)):
                file.seek(number * BLOCK)
                if zlib.crc32(file.read(BLOCK)) != checksums[number]:
                    raise ValueError(f"{path}: is damaged in the {BLOCK} bytes after byte {number * BLOCK}")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def _sample(blocks: int) -> Iterator[int]:
    """Indices of all blocks, or of `CHECKED` evenly spread ones, first and last included."""
    if blocks <= CHECKED:
        yield from range(blocks)
    else:
        yield from (i * (blocks - 1) // (CHECKED - 1) for i in range(CHECKED))
