"""Writes a safetensors file tensor by tensor, so that memory stays near the largest two of them.

The format: eight bytes with the length of a JSON header, the header, the bytes of all tensors in its order.
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch uses one thread. A second one would share its core with the writer, and the first wait for it: to
    look at weights then took ten times as long, and more than to write them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write(path: Path, entries: list[Entry], tensors: Iterable[Tensor], metadata: dict[str, str]) -> None:
    """Write `tensors`, which come in the order of `entries` and are as these say, and bring them to disk."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, dtype, shape in entries:
        begin, end = end, end + dtype.itemsize * int(torch.Size(shape).numel())
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with one_thread(), path.open("wb") as file, ThreadPoolExecutor(1) as writer:
        pending: Future[int] = writer.submit(file.write, len(text).to_bytes(8, "little") + text)
        for (name, dtype, shape), tensor in zip(entries, tensors, strict=True):
            assert (tensor.dtype, tuple(tensor.shape)) == (dtype, shape), name
            pending.result()  # one is written while the next is read, and no more than these two are held
            pending = writer.submit(file.write, tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        pending.result()
        file.flush()
        os.fsync(file.fileno())
