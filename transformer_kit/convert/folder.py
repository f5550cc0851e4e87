"""Load a Hugging Face folder as a model: config.json, safetensors (one file or shards with an index)."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from registry import untrusted
from registry.options import Options
from transformer_kit.convert.amount import check_amount, parameters_of
from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.errors import CONFIG, ConvertError, of_file, of_folder
from transformer_kit.convert.layout import inward
from transformer_kit.convert.page import declaration_of, fitted, page_of, values_of
from transformer_kit.convert.tensors import Move, alternatives, constants, ignored
from transformer_kit.convert.ties import apart, twice
from transformer_kit.convert.types import types_of
from transformer_kit.convert.weights import FLOATS, Weights
from transformer_kit.convert.words import of_config
from transformer_kit.model.build import KERNEL, assemble
from transformer_kit.model.model import Model
from transformer_kit.model.types import words
from transformer_kit.spec.schema import Spec
from transformer_kit.transform.materialize import load
from transformer_kit.transform.pipeline import transformed

QUANTISED = "quantization_config"


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a Hugging Face folder. Raises ConvertError."""
    path = folder / CONFIG
    with of_file():
        untrusted.check_links(folder)
        if not path.is_file():
            raise ConvertError(str(folder), [f"holds no {CONFIG}, so it is not a Hugging Face folder"])
        return untrusted.mapping(path)


def spec_of(config: Mapping[str, Any], declaration: Declaration | None = None, *, weights: bool = False) -> Spec:
    """The spec of a config. With `weights`, quantized weights are an error. Raises ConvertError."""
    declaration = declaration_of(config) if declaration is None else declaration
    page = page_of(config, declaration, quantized(config) if weights else [])
    with of_config(config, declaration):
        return Spec.of(page)


def model_of(
    config: Mapping[str, Any], declaration: Declaration, kernel: str | Options = KERNEL, *, weights: bool = False
) -> Model:
    """The model of a config, without memory for its weights. Raises ConvertError."""
    spec = spec_of(config, declaration, weights=weights)
    with of_config(config, declaration):
        return assemble(spec, kernel)


def quantized(config: Mapping[str, Any]) -> list[str]:
    """An error message if the weights are quantized."""
    how = config.get(QUANTISED)
    if not how:
        return []
    method = how.get("quant_method", "by an unnamed method") if isinstance(how, dict) else how
    return [
        f"{QUANTISED}: quantized weights ({method!s:.40}) cannot be read; use the folder in its original precision, "
        "or import its config alone with --spec-only"
    ]


def load_folder(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    kernel: str | Options = KERNEL,
    declaration: Declaration | None = None,
) -> Model:
    """The model in a Hugging Face folder, in evaluation mode. Raises ConvertError."""
    config = read_config(folder)
    with of_folder(folder):
        declaration = fitted(declaration_of(config) if declaration is None else declaration, config)
        parameters = parameters_of(spec_of(config, declaration, weights=True), config, declaration)
        weights = Weights(folder, declaration.prefix)
        check_amount(weights, parameters)
        model = model_of(config, declaration, kernel, weights=True)
    tensors = translated(weights, model, declaration, config, dtype)
    model.spec._source.notes.extend(weights.notes)
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    return transformed(model, load=partial(load, tensors=placed, device=device)).eval()


def translated(
    weights: Weights,
    model: Model,
    declaration: Declaration,
    config: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """The kit tensors, made from the checkpoint tensors and converted to `dtype` if given. Raises ConvertError with all
    tensors that are missing, left over, misshapen or NaN.
    """
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found, problems = matched(weights, model, declaration)
    values = values_of(config, declaration)
    types = types_of(weights, found, model, config) if dtype is None else dict.fromkeys(shapes, dtype)
    out: dict[str, Tensor] = {}
    for move in found:
        if weights.usable(move.theirs):
            tensors, wrong = applied(weights, move, shapes, values, types)
            problems += wrong
            if move.expert is None:
                out |= tensors
            else:
                for name, tensor in tensors.items():
                    out.setdefault(name, tensor.new_empty(shapes[name]))[move.expert] = tensor
    problems += apart(weights, declaration, model)
    if problems:
        raise ConvertError(str(weights.folder), problems[:40])
    return out


def matched(weights: Weights, model: Model, declaration: Declaration) -> tuple[list[Move], list[str]]:
    """The moves that fill the model from these weights, and messages about missing or unused tensors."""
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found = alternatives(declaration, shapes, len(model.spec.model.layers.blocks), weights.names())
    return found, _mismatches(weights, found, shapes, declaration)


def applied(
    weights: Weights,
    move: Move,
    shapes: Mapping[str, tuple[int, ...]],
    values: Mapping[str, Any],
    types: Mapping[str, torch.dtype],
) -> tuple[dict[str, Tensor], list[str]]:
    """The kit tensors of one move, and messages about errors. `values` belong to the config's flat keys, `types` to the
    kit tensors.
    """
    wanted = dict(zip(move.ours, move.own_shapes(shapes), strict=True))
    try:
        theirs = [weights.get(name, move.part).to(types[move.ours[0]]) for name in move.theirs]
        ours = inward(theirs, move.ops, [shape[0] for shape in wanted.values()], values)
    except (ValueError, IndexError, RuntimeError) as error:
        return {}, [f"{', '.join(move.theirs)}: {error}"]
    problems = []
    for name, tensor in zip(move.ours, ours, strict=True):
        if tuple(tensor.shape) != wanted[name]:
            problems.append(f"{', '.join(move.theirs)} gives {name} as {tuple(tensor.shape)}, not {wanted[name]}")
        elif not _finite(tensor):
            problems.append(f"{', '.join(move.theirs)} holds values that are not numbers in {words([tensor.dtype])}")
    return {name: tensor.contiguous() for name, tensor in zip(move.ours, ours, strict=True)}, problems


def faults(
    weights: Weights,
    found: list[Move],
    shapes: Mapping[str, tuple[int, ...]],
    values: Mapping[str, Any],
    types: Mapping[str, torch.dtype],
) -> list[str]:
    """Messages about errors in the tensors that exist."""
    there = [move for move in found if weights.usable(move.theirs)]
    return [problem for move in there for problem in applied(weights, move, shapes, values, types)[1]]


def _finite(tensor: Tensor) -> bool:
    """Whether all values are finite, in one pass without allocation. If the sum overflows, the extremes decide."""
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
    problems += [f"{n} must hold the constant {fixed[n]}; the kit has no part for other values" for n in sorted(other)]
    left = weights.names() - wanted - set(fixed)
    left = {
        n
        for n in left
        if math.prod(weights.shape(n)) and not ignored(n, declaration, layers) and n not in twice(declaration)
    }
    return problems + [f"{name} {weights.shape(name)} has no place in the model" for name in sorted(left)]
