"""Fine-tuning: a run that starts from a trained folder's weights, with a fresh optimizer.

What carries over is decided tensor by tensor, by name and shape. A run whose model differs from the folder's in
anything is refused, with the differences, unless a partial start was asked for.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import nn

from transformer_kit.model.folder import load
from transformer_kit.model.model import Model
from transformer_kit.train.errors import TransferError
from transformer_kit.train.report import Reporter
from transformer_kit.train.resume import differing


@dataclass(frozen=True)
class Transfer:
    """What a model takes over from a trained folder."""

    differences: list[str]
    """Where the two specs differ: `model.dropout: 0.1, now 0.0`."""
    carried: list[str]
    """Tensors that start from the folder's."""
    fresh: list[str]
    """Tensors of the model that start anew."""
    dropped: list[str]
    """Tensors of the folder that the model has no use for."""

    def text(self) -> str:
        """Everything, in a few lines."""
        lines = [f"the model differs from the trained one: {_listed(self.differences)}"]
        lines.append(f"carried over: {len(self.carried)} tensors")
        lines += [f"starting anew: {_listed(self.fresh)}"] if self.fresh else []
        lines += [f"left behind: {_listed(self.dropped)}"] if self.dropped else []
        return "\n  ".join(lines)


def start_from(folder: Path, model: Model, *, allow_partial: bool, report: Reporter) -> Transfer:
    """Copy the weights of the trained `folder` into `model`.

    Raises TransferError when the two specs differ and that was not allowed, FolderError for what is no model folder.
    """
    trained = load(folder)
    transfer = compare(trained, model)
    if transfer.differences or transfer.fresh or transfer.dropped:
        if not allow_partial:
            raise TransferError(f"{folder}: {transfer.text()}\n  use --allow-partial to start like this")
        report.note(transfer.text())
    if not transfer.carried:
        raise TransferError(f"{folder}: no tensor there fits this model; train it from the start instead")
    source, own = trained.state_dict(), model.state_dict()
    with torch.no_grad():
        for name in transfer.carried:
            own[name].copy_(source[name])
    return transfer


def compare(trained: Model, model: Model) -> Transfer:
    """What `model` would take over from `trained`."""
    source = {name: t.shape for name, t in trained.state_dict().items()}
    own = {name: t.shape for name, t in model.state_dict().items()}
    return Transfer(
        differences=differing(trained.spec.resolved()["model"], model.spec.resolved()["model"], "model"),
        carried=[name for name in own if source.get(name) == own[name]],
        fresh=[name for name in own if source.get(name) != own[name]],
        dropped=[name for name in source if name not in own],
    )


def freeze(model: nn.Module, patterns: tuple[str, ...]) -> None:
    """Stop the parameters whose names fit a pattern (`layers.0.*`) from learning. ValueError if one fits none."""
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        fitting = [p for name, p in parameters.items() if fnmatchcase(name, pattern)]
        if not fitting:
            few = ", ".join(list(parameters)[:4])
            raise ValueError(f"no parameter is named like '{pattern}'; names are {few}, ...")
        for parameter in fitting:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in parameters.values()):
        raise ValueError("every parameter is frozen, so nothing would learn")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
