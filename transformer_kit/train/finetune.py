"""Fine-tuning: a run that starts from a trained folder's weights, with a new optimizer state.

Name and shape decide which tensors are loaded. A run whose model differs from the folder's is refused, and the message
lists the differences, unless a partial start is allowed.
"""

from pathlib import Path

import torch

from transformer_kit.model.folder import load
from transformer_kit.model.model import Model
from transformer_kit.model.used import resolved
from transformer_kit.train.errors import TransferError
from transformer_kit.train.report import Reporter
from transformer_kit.train.resume import differing
from transformer_kit.train.transfer import Transfer


def start_from(folder: Path, model: Model, *, allow_partial: bool, report: Reporter) -> Transfer:
    """Copy the weights of the trained `folder` into `model`.

    Raises TransferError when the two specs differ and that is not allowed, FolderError when it is not a model folder.
    """
    trained = load(folder)
    transfer = compare(trained, model)
    if transfer.differences or transfer.fresh or transfer.dropped:
        if not allow_partial:
            raise TransferError(f"{folder}: {transfer.text()}\n  use --allow-partial to start anyway")
        report.transfer(transfer)
    if not transfer.carried:
        raise TransferError(f"{folder}: no tensor there fits this model; train it from the start instead")
    source, own = trained.state_dict(), model.state_dict()
    with torch.no_grad():
        for name in transfer.carried:
            own[name].copy_(source[name])
    return transfer


def compare(trained: Model, model: Model) -> Transfer:
    """What `model` would load from `trained`."""
    source = {name: t.shape for name, t in trained.state_dict().items()}
    own = {name: t.shape for name, t in model.state_dict().items()}
    return Transfer(
        differences=differing(resolved(trained.spec)["model"], resolved(model.spec)["model"], "model"),
        carried=[name for name in own if source.get(name) == own[name]],
        fresh=[name for name in own if source.get(name) != own[name]],
        dropped=[name for name in source if name not in own],
    )
