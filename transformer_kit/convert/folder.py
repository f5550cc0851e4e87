"""A Hugging Face folder as a model in memory: config.json, safetensors (one file or shards with an index)."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from registry.options import Options
from transformer_kit.convert import stream
from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.layout import inward, unfold
from transformer_kit.convert.page import declaration_of, fitted, page_of, values_of
from transformer_kit.convert.tensors import Move, alternatives, constants, ignored
from transformer_kit.model.build import KERNEL, assemble
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import Spec

CONFIG, ONE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
HEAD, TABLE = "head.out.weight", "embedding.table.weight"
"""Our names of the two tensors that a tied model stores once."""
DTYPES = {name: dtype for dtype, name in stream.NAMES.items()}
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights; narrower ones need scales, which no part reads."""
MAX_CONFIG = 16 * 2**20


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a Hugging Face folder. Raises ConvertError."""
    path = folder / CONFIG
    if not path.is_file():
        raise ConvertError(str(folder), [f"holds no {CONFIG}, so it is not a Hugging Face folder"])
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError(f"larger than {MAX_CONFIG} bytes")
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ConvertError(str(path), [f"cannot be read: {error}"]) from None
    if not isinstance(config, dict):
        raise ConvertError(str(path), [f"must be a mapping, got {type(config).__name__}"])
    return config


def spec_of(config: Mapping[str, Any], declaration: Declaration | None = None) -> Spec:
    """The spec that a config describes. Raises ConvertError or SpecError."""
    declaration = declaration_of(config) if declaration is None else declaration
    return Spec.of(page_of(config, declaration))


class Weights:
    """The tensors of a folder, opened and not yet read.

    Where no name starts with `prefix`, as in files of a model saved without its head, every name gets it.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        paths = self._paths()
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
        held = {shard: set(_names(self.folder / shard)) for shard in set(listed.values())}
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


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ConvertError(str(path), [f"cannot be read as safetensors: {error}"]) from None


def _index(path: Path) -> dict[str, str]:
    try:
        listed = json.loads(path.read_text("utf-8"))["weight_map"]
        if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
            raise ValueError("weight_map must give a file for each tensor")
    except (ValueError, KeyError, OSError, TypeError, RecursionError) as error:
        raise ConvertError(str(path), [f"cannot be read: {error}"]) from None
    return listed


def _no_weights(folder: Path) -> str:
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickled:
        return (
            f"{pickled[0]} is a pickle, which can run code and is never read; convert it to safetensors at its source"
        )
    return f"holds neither {ONE} nor {INDEX}"


def load_folder(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    kernel: str | Options = KERNEL,
    declaration: Declaration | None = None,
) -> Model:
    """The model in a Hugging Face folder, in evaluation mode. Raises ConvertError, or SpecError."""
    config = read_config(folder)
    declaration = fitted(declaration_of(config) if declaration is None else declaration, config)
    model = assemble(spec_of(config, declaration), kernel)
    tensors = translated(Weights(folder, declaration.prefix), model, declaration, config)
    placed = {name: tensor.to(device=device, dtype=dtype) for name, tensor in tensors.items()}
    model.load_state_dict(placed, strict=True, assign=True)
    return model.eval()


def translated(
    weights: Weights, model: Model, declaration: Declaration, config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Our tensors, made from theirs. Raises ConvertError with everything missing, left over, misshapen or NaN."""
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found, problems = matched(weights, model, declaration)
    values = values_of(config, declaration)
    out: dict[str, Tensor] = {}
    for move in found:
        if weights.usable(move.theirs):
            tensors, wrong = applied(weights, move, shapes, values)
            out |= tensors
            problems += wrong
    problems += tied(weights, declaration, model)
    if problems:
        raise ConvertError(str(weights.folder), problems[:40])
    return out


def matched(weights: Weights, model: Model, declaration: Declaration) -> tuple[list[Move], list[str]]:
    """The moves that make a model of these weights, and what is missing or left over."""
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found = alternatives(declaration, shapes, len(model.spec.model.layers.blocks), weights.names())
    return found, _mismatches(weights, found, shapes, declaration)


def applied(
    weights: Weights, move: Move, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """What one move makes, and what is wrong with it; `values` are those of the config's flat keys."""
    try:
        theirs = [weights.get(name, move.part) for name in move.theirs]
        ours = inward(theirs, move.ops, [shapes[n][0] for n in move.ours], values)
    except (ValueError, IndexError, RuntimeError) as error:
        return {}, [f"{', '.join(move.theirs)}: {error}"]
    problems = []
    for name, tensor in zip(move.ours, ours, strict=True):
        if tuple(tensor.shape) != shapes[name]:
            problems.append(f"{', '.join(move.theirs)} gives {name} as {tuple(tensor.shape)}, not {shapes[name]}")
        elif not _finite(tensor):
            problems.append(f"{', '.join(move.theirs)} holds values that are not numbers")
    return {name: tensor.contiguous() for name, tensor in zip(move.ours, ours, strict=True)}, problems


def faults(
    weights: Weights, found: list[Move], shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, Any]
) -> list[str]:
    """What is wrong with the tensors that are there; none is kept."""
    there = [move for move in found if weights.usable(move.theirs)]
    return [problem for move in there for problem in applied(weights, move, shapes, values)[1]]


def _finite(tensor: Tensor) -> bool:
    """One pass, nothing allocated: a sum is finite only if everything is. It may overflow; then the extremes tell."""
    if not tensor.is_floating_point() or not tensor.numel() or bool(torch.isfinite(tensor.sum())):
        return True
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))


def _mismatches(
    weights: Weights, found: list[Move], shapes: Mapping[str, tuple[int, ...]], declaration: Declaration
) -> list[str]:
    wanted = {name for move in found for name in move.theirs}
    made = {name for move in found for name in move.ours}
    layers = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("layers."))
    problems = [f"missing {name}" for name in sorted(wanted - weights.names())]
    kinds = {name: weights.kind(name) for name in sorted(wanted & weights.names())}
    problems += [f"{n} is of {k}; weights are {', '.join(FLOATS)}" for n, k in kinds.items() if k not in FLOATS]
    problems += [f"no tensor is declared to give {name}" for name in sorted(set(shapes) - made)]
    fixed = {n: v for n, v in constants(declaration, layers).items() if n in weights}
    other = {n for n, v in fixed.items() if not torch.isclose(weights.get(n).float(), torch.tensor(v), rtol=1e-2).all()}
    problems += [f"{n} holds something else than {fixed[n]}, which the kit has no part for" for n in sorted(other)]
    left = weights.names() - wanted - set(fixed)
    left = {n for n in left if not ignored(n, declaration, layers) and not _head(n, declaration)}
    return problems + [f"{name} {weights.shape(name)} has no place in the model" for name in sorted(left)]


def _head(name: str, declaration: Declaration) -> bool:
    return declaration.tensors.get(name) == HEAD


def tied(weights: Weights, declaration: Declaration, model: Model) -> list[str]:
    """Tied weights that are stored twice must be equal."""
    names = {ours: theirs for theirs, ours in declaration.tensors.items() if ours in (HEAD, TABLE)}
    head, table = names.get(HEAD, ""), names.get(TABLE, "")
    if HEAD in model.state_dict() or head not in weights or table not in weights:
        return []
    if torch.equal(weights.get(head), weights.get(table)):
        return []
    return [f"the config says that {head} is the embedding's table {table}, and the two differ"]
