"""Write a safetensors file piece by piece, with memory for about the two largest pieces.

A piece is a tensor, or one expert of a stacked tensor.

The format: eight bytes with the length of a JSON header, the header, and the bytes of all tensors in its order.
"""

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
}

Entry = tuple[str, torch.dtype, tuple[int, ...]]
Piece = tuple[str, int | None, Tensor]
"""Tensor name, expert index (None for the whole tensor), and values."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Context in which torch uses one thread. A second thread would compete with the writer for its core: checking
    weights then took ten times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write(path: Path, entries: list[Entry], pieces: Iterable[Piece], metadata: dict[str, str]) -> None:
    """Write the tensors that `entries` describe, and flush them to disk. The pieces may come in any order."""
    header: dict[str, object] = {"__metadata__": metadata}
    begins: dict[str, int] = {}
    end = 0
    for name, dtype, shape in entries:
        begins[name], end = end, end + dtype.itemsize * int(torch.Size(shape).numel())
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begins[name], end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    left = end
    with one_thread(), path.open("wb") as file, ThreadPoolExecutor(1) as writer:

        def put(place: int, data: memoryview | bytes) -> None:
            file.seek(place)
            file.write(data)

        pending: Future[None] = writer.submit(put, 0, len(text).to_bytes(8, "little") + text)
        for name, expert, tensor in pieces:
            place = 8 + len(text) + begins[name] + (0 if expert is None else expert * tensor.nbytes)
            pending.result()  # one piece is written while the next is read
            pending = writer.submit(put, place, tensor.contiguous().flatten().view(torch.uint8).numpy().data)
            left -= tensor.nbytes
        pending.result()
        assert left == 0, f"{left} bytes were not written"
        file.flush()
        os.fsync(file.fileno())
