"""The tensors of a Hugging Face folder, opened lazily: one safetensors file, or shards with an index."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from registry import untrusted
from registry.files import pointer_at
from transformer_kit.convert import stream
from transformer_kit.convert.errors import ConvertError, of_file
from transformer_kit.convert.layout import unfold

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {name: dtype for dtype, name in stream.NAMES.items()}
MAX_INDEX = 32 * 2**20
"""Maximum bytes of an index."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""Supported dtypes of weights; narrower ones need scales, which the kit does not read."""


class Weights:
    """The tensors of a folder, opened lazily. Each file is opened once.

    If no name starts with `prefix`, as in a model saved without its head, every name gets the prefix.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        self.notes: list[str] = []
        """Notes: two sets of weights in one folder, several dtypes."""
        shards = self._shards()
        self.read = [*sorted(shards), INDEX]
        """Names of the files that hold the tensors."""
        names = [name for file in shards.values() for name in file.keys()]  # noqa: SIM118 - not a dict
        added = "" if any(name.startswith(prefix) for name in names) else prefix
        self._places = {added + name: (file, name) for file in shards.values() for name in file.keys()}  # noqa: SIM118

    def _shards(self) -> dict[str, Any]:
        """The opened files: the single file if it exists, else the shards of the index."""
        one, index = self.folder / ONE, self.folder / INDEX
        listed = _index(index) if index.is_file() else {}
        if one.is_file() and ONE not in listed.values():
            if index.is_file():
                self.notes.append(f"reading {ONE}, as transformers does, and not the shards in {INDEX}")
            return {ONE: _opened(one)}
        if not index.is_file():
            raise ConvertError(str(self.folder), [_no_weights(self.folder)])
        problems = [f"{INDEX} names {n}, outside the folder" for n in set(listed.values()) if Path(n).name != n]
        problems += [
            f"{n}, which {INDEX} names, is missing"
            for n in sorted(set(listed.values()))
            if not (self.folder / n).is_file()
        ]
        if problems:
            raise ConvertError(str(self.folder), problems)
        shards = _all_opened(self.folder, sorted(set(listed.values())))
        _check_index(self.folder, listed, {shard: set(file.keys()) for shard, file in shards.items()})
        return shards

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._places)

    def get(self, name: str, part: tuple[int, int, bool] | None = None) -> Tensor:
        """A tensor, or one part of a stacked tensor."""
        if part is None:
            file, stored = self._places[name]
            tensor: Tensor = file.get_tensor(stored)
            return tensor
        index, count, folded = part
        if folded:
            return unfold(self.get(name), count, index)
        if self.shape(name)[0] != count:
            raise ValueError(f"holds {self.shape(name)[0]} tensors, and the model has {count} experts")
        piece: Tensor = self._slice(name)[index]
        return piece

    def _slice(self, name: str) -> Any:
        file, stored = self._places[name]
        return file.get_slice(stored)

    def kind(self, name: str) -> str:
        """A tensor's dtype in the file's spelling, without reading the tensor."""
        return str(self._slice(name).get_dtype())

    def dtype(self, name: str) -> torch.dtype:
        """A tensor's dtype, without reading the tensor."""
        return DTYPES[self.kind(name)]

    def usable(self, names: Iterable[str]) -> bool:
        """Whether all of these tensors exist and have a supported dtype."""
        return all(name in self and self.kind(name) in FLOATS for name in names)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading the tensor."""
        return tuple(self._slice(name).get_shape())


def _check_index(folder: Path, listed: dict[str, str], held: dict[str, set[str]]) -> None:
    """Raise ConvertError if the index and the files disagree on a tensor's location."""
    problems = [
        f"{name} is not in {shard}, where {INDEX} places it"
        for name, shard in listed.items()
        if name not in held[shard]
    ]
    problems += [
        f"{name} is in {shard}, where {INDEX} does not place it"
        for shard, names in sorted(held.items())
        for name in sorted(names)
        if listed.get(name) != shard
    ]
    if problems:
        raise ConvertError(str(folder), problems[:20])


def _all_opened(folder: Path, shards: list[str]) -> dict[str, Any]:
    """The opened shards. Raises ConvertError with every unreadable one."""
    opened: dict[str, Any] = {}
    problems: list[str] = []
    for shard in shards:
        try:
            opened[shard] = _opened(folder / shard)
        except ConvertError as error:
            problems += [f"{shard}: {text}" for text in error.problems]
    if problems:
        raise ConvertError(str(folder), problems)
    return opened


def _opened(path: Path) -> Any:
    if (what := pointer_at(path)) is not None:
        raise ConvertError(str(path), [what])
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ConvertError(str(path), [f"cannot be read as safetensors: {error}"]) from None


def _index(path: Path) -> dict[str, str]:
    with of_file():
        listed = untrusted.mapping(path, MAX_INDEX).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
        raise ConvertError(str(path), ["weight_map must map each tensor to a file"])
    return listed


def _no_weights(folder: Path) -> str:
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickled:
        return (
            f"{pickled[0]} is a pickle, which can run code, so the kit never reads it; convert it to safetensors first"
        )
    return f"holds neither {ONE} nor {INDEX}"
