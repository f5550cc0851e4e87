"""The trained folder that a run starts from: its model spec, and whether the run's model is the same."""

from pathlib import Path
from typing import Any

from transformer_kit.convert.errors import CONFIG, of_folder
from transformer_kit.convert.folder import read_config, spec_of
from transformer_kit.convert.page import declaration_of, fitted
from transformer_kit.model.build import assemble
from transformer_kit.model.folder import RUN, SPEC, FolderError, model_folder
from transformer_kit.model.model import Model
from transformer_kit.spec.read import read
from transformer_kit.train.errors import TransferError
from transformer_kit.train.finetune import compare


def page_in(source: Path) -> Path | dict[str, Any]:
    """The model spec of a trained folder, or the spec converted from a Hugging Face config.

    Raises FolderError for a folder that holds neither, ConvertError for a config with faults.
    """
    folder = model_folder(source)
    if (folder / SPEC).is_file():
        return folder / SPEC
    if not (folder / CONFIG).is_file():
        raise FolderError(f"{source}: not a trained folder: it holds neither {SPEC} nor {CONFIG}")
    config = read_config(folder)
    with of_folder(folder):
        declaration = fitted(declaration_of(config), config)
        return spec_of(config, declaration, weights=True).resolved()


def page_of_run(folder: Path) -> Path | None:
    """The spec in the folder of a run."""
    return folder / RUN if (folder / RUN).is_file() else None


def check(source: Path, model: Model) -> None:
    """Raise TransferError where `model` differs from the one in the trained folder; weights are not loaded."""
    transfer = compare(assemble(read(page_in(source))), model)
    if transfer.differences or transfer.fresh or transfer.dropped:
        raise TransferError(f"{source}: {transfer.text()}\n  use --allow-partial to start anyway")
