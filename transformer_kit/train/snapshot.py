"""The state of a run: weights, optimizer state, and progress.

Tensors are stored as safetensors, other state as JSON, in which `{"tensor": shape}` stands for a tensor of the
optimizer's state. Data position and random numbers are not stored: the seed and the step number determine the batch of
a step and its random numbers.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from registry import untrusted
from transformer_kit.train.errors import CheckpointError

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"

MAX_STATE = 256 * 2**20
"""Bytes of the state other than tensors."""

Json = Any
"""Values of JSON."""


@dataclass(frozen=True)
class Header:
    """Header of a checkpoint."""

    step: int
    """Optimizer steps done."""
    spec: dict[str, Json]
    """The run config, resolved, without settings that do not change the weights."""
    corpus: dict[str, str]
    """Fingerprints of the corpus and the tokenizer."""
    machine: dict[str, Json]
    """Facts that may change the last bits of a result: versions, device, threads."""
    seconds: float
    """Time spent training."""
    peak: float = 0.0
    """Peak FLOP/s for MFU, constant for the whole run on one machine."""


def save(folder: Path, header: Header, model: nn.Module, optimizer: Optimizer) -> None:
    """Write the state of a run into `folder`. Raises OSError, or CheckpointError for unsupported optimizer state."""
    tree, tensors = _optimizer_state(model, optimizer)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in live(model).items()}
    save_file(weights, folder / WEIGHTS)
    save_file(tensors, folder / OPTIMIZER)
    state = {"header": vars(header), "optimizer": tree}
    (folder / STATE).write_text(json.dumps(state), "utf-8")


def read_header(folder: Path) -> Header:
    """Load the header of the checkpoint in `folder`."""
    with _of_this_version(folder):
        header = Header(**_state(folder)["header"])
        kinds: dict[str, Any] = {"step": int, "spec": dict, "corpus": dict, "machine": dict, "seconds": (int, float)}
        wrong = [name for name, kind in kinds.items() if not isinstance(getattr(header, name), kind)]
        if wrong or header.step < 0:
            raise ValueError(f"{', '.join(wrong) or 'step'} cannot be {getattr(header, (wrong or ['step'])[0])!r:.60}")
        return header


def restore(folder: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load the state in `folder` into model and optimizer. CheckpointError when it does not fit them."""
    state = _state(folder)
    load_weights(model, _tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    with _of_this_version(folder):
        _restore_optimizer(folder, state["optimizer"], model, optimizer)


@contextmanager
def _of_this_version(folder: Path) -> Iterator[None]:
    """Inside, state of an unexpected structure raises CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{folder / STATE}: not the state of a run of this version ({error})") from error


def live(model: nn.Module) -> dict[str, Tensor]:
    """Stored tensors of the model, each once, under its first name."""
    stored = model.state_dict().keys()
    return {name: t for name, t in [*model.named_parameters(), *model.named_buffers()] if name in stored}


def load_weights(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Copy `tensors` into the model. CheckpointError lists missing and unknown tensors, and wrong shapes."""
    own = live(model)
    _compare(_shapes(own), _shapes(tensors), source)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def _compare(wanted: dict[str, list[int]], got: dict[str, list[int]], source: str) -> None:
    faults = [f"missing {name}" for name in wanted if name not in got]
    faults += [f"unknown {name}" for name in got if name not in wanted]
    shared = [name for name in wanted if name in got and wanted[name] != got[name]]
    faults += [f"{name} is {got[name]}, not {wanted[name]}" for name in shared]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(f"{source} does not fit the model: {'; '.join(faults[:5])}{more}")


# ------------------------------------------------------------------ the optimizer


def _optimizer_state(model: nn.Module, optimizer: Optimizer) -> tuple[Json, dict[str, Tensor]]:
    """The optimizer's state as a JSON tree, by parameter name, and its tensors."""
    names = {id(p): name for name, p in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    state: dict[str, Json] = {}
    for parameter, values in optimizer.state.items():
        name = names[id(parameter)]
        state[name] = {}
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{name}:{key}"] = value.detach().cpu().contiguous()
                value = {"tensor": list(value.shape)}
            state[name][key] = _checked(value, f"state '{key}' of {name}")
    groups = [
        {k: [names[id(p)] for p in v] if k == "params" else _checked(v, f"option '{k}'") for k, v in group.items()}
        for group in optimizer.param_groups
    ]
    return {"state": state, "groups": groups}, tensors


def _checked(value: Json, what: str) -> Json:
    try:
        json.dumps(value)
    except TypeError as error:
        kind = type(value).__name__
        raise CheckpointError(f"the optimizer's {what} is a {kind}, which a checkpoint cannot hold") from error
    return value


def _restore_optimizer(folder: Path, tree: Json, model: nn.Module, optimizer: Optimizer) -> None:
    tensors = _tensors(folder / OPTIMIZER)
    leaves = {f"{n}:{k}": v["tensor"] for n, s in tree["state"].items() for k, v in s.items() if isinstance(v, dict)}
    _compare(leaves, _shapes(tensors), str(folder / OPTIMIZER))
    current, _ = _optimizer_state(model, optimizer)
    order = [name for group in current["groups"] for name in group["params"]]
    if [g["params"] for g in tree["groups"]] != [g["params"] for g in current["groups"]]:
        raise CheckpointError(f"{folder / STATE}: its optimizer updates other parameters than this run's")
    state = {order.index(n): {k: tensors.get(f"{n}:{k}", v) for k, v in s.items()} for n, s in tree["state"].items()}
    ordinals = iter(range(len(order)))
    groups = [
        {k: [next(ordinals) for _ in v] if k == "params" else _like(live.get(k), v) for k, v in group.items()}
        for group, live in zip(tree["groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _like(live: Json, value: Json) -> Json:
    """JSON has no tuples."""
    return tuple(value) if isinstance(live, tuple) else value


# ------------------------------------------------------------------ files


def _state(folder: Path) -> Json:
    try:
        return untrusted.mapping(folder / STATE, MAX_STATE)
    except untrusted.FileError as error:
        raise CheckpointError(str(error)) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError derives from Exception directly
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
