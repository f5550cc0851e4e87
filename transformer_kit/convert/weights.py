"""The tensors of a Hugging Face folder, opened and not yet read: one file of safetensors, or shards with an index."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from registry import untrusted
from transformer_kit.convert import stream
from transformer_kit.convert.errors import ConvertError, of_file
from transformer_kit.convert.layout import unfold

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {name: dtype for dtype, name in stream.NAMES.items()}
MAX_INDEX = 32 * 2**20
"""Bytes of an index."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights; narrower ones need scales, which no part reads."""


class Weights:
    """The tensors of a folder, opened and not yet read.

    Where no name starts with `prefix`, as in files of a model saved without its head, every name gets it.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        paths = self._paths()
        self.read = [*sorted({path.name for path in paths.values()}), INDEX]
        """Names of the files that hold them."""
        added = "" if any(name.startswith(prefix) for name in paths) else prefix
        self.files = {added + name: safe_open(path, framework="pt") for name, path in paths.items()}
        self.stored = {added + name: name for name in paths}

    def _paths(self) -> dict[str, Path]:
        """The file of each tensor."""
        one, index = self.folder / ONE, self.folder / INDEX
        if not index.is_file():
            if not one.is_file():
                raise ConvertError(str(self.folder), [_no_weights(self.folder)])
            return dict.fromkeys(_names(one), one)
        listed = _index(index)
        problems = [f"{INDEX} names {n}, outside the folder" for n in set(listed.values()) if Path(n).name != n]
        problems += [
            f"{n}, which {INDEX} names, is missing"
            for n in sorted(set(listed.values()))
            if not (self.folder / n).is_file()
        ]
        if problems:
            raise ConvertError(str(self.folder), problems)
        held = _held(self.folder, sorted(set(listed.values())))
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
            raise ConvertError(str(self.folder), problems[:20])
        return {name: self.folder / shard for name, shard in listed.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self.files)

    def get(self, name: str, part: tuple[int, int, bool] | None = None) -> Tensor:
        """A tensor, or one of those stacked in it."""
        if part is None:
            tensor: Tensor = self.files[name].get_tensor(self.stored[name])
            return tensor
        index, count, folded = part
        if folded:
            return unfold(self.files[name].get_tensor(self.stored[name]), count, index)
        if self.shape(name)[0] != count:
            raise ValueError(f"holds {self.shape(name)[0]} tensors, and the model has {count} experts")
        piece: Tensor = self.files[name].get_slice(self.stored[name])[index]
        return piece

    def kind(self, name: str) -> str:
        """A tensor's type as the file spells it, without reading it."""
        return str(self.files[name].get_slice(self.stored[name]).get_dtype())

    def dtype(self, name: str) -> torch.dtype:
        """A tensor's type, without reading it."""
        return DTYPES[self.kind(name)]

    def usable(self, names: Iterable[str]) -> bool:
        """Whether all of these are there and can be weights."""
        return all(name in self and self.kind(name) in FLOATS for name in names)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return tuple(self.files[name].get_slice(self.stored[name]).get_shape())


def _held(folder: Path, shards: list[str]) -> dict[str, set[str]]:
    """Names of the tensors in each shard. Raises ConvertError with every one that cannot be read."""
    held: dict[str, set[str]] = {}
    problems: list[str] = []
    for shard in shards:
        try:
            held[shard] = set(_names(folder / shard))
        except ConvertError as error:
            problems += [f"{shard}: {text}" for text in error.problems]
    if problems:
        raise ConvertError(str(folder), problems)
    return held


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ConvertError(str(path), [f"cannot be read as safetensors: {error}"]) from None


def _index(path: Path) -> dict[str, str]:
    with of_file():
        listed = untrusted.mapping(path, MAX_INDEX).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
        raise ConvertError(str(path), ["weight_map must give a file for each tensor"])
    return listed


def _no_weights(folder: Path) -> str:
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickled:
        return (
            f"{pickled[0]} is a pickle, which can run code and is never read; convert it to safetensors at its source"
        )
    return f"holds neither {ONE} nor {INDEX}"
