"""A trained model as a folder: `spec.yaml`, `model.safetensors`, `tokenizer.json`.

    save(model, folder, tokenizer)     atomic: written to a draft, synced to disk, then renamed
    load(folder)                       the model, with names and shapes of its weights checked

Errors: FolderError, a ValueError, says what is wrong with a folder and what it should hold.
"""

import os
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from registry import untrusted
from registry.contracts import Tokenizer
from registry.files import pointer_at
from registry.options import Options
from transformer_kit.model.build import KERNEL, assemble
from transformer_kit.model.changes import changes
from transformer_kit.model.drafts import draft_of
from transformer_kit.model.given import device_of, dtype_of, path_of
from transformer_kit.model.model import Model
from transformer_kit.model.types import agree, words
from transformer_kit.spec.check import Source
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import Spec
from transformer_kit.spec.yaml import dump
from transformer_kit.transform.materialize import load as load_tensors
from transformer_kit.transform.pipeline import transformed
from transformer_kit.transform.prepare import InferenceModel

SPEC, WEIGHTS = "spec.yaml", "model.safetensors"
RUN = "run.yaml"
"""The spec in the folder of a run."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SHOWN = 20
"""Number of wrong tensors in a message."""


class FolderError(ValueError):
    """A folder is not a model folder, or its files disagree."""


def save(model: Model, folder: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write the model folder and return its path. Raises FolderError when the path is taken or cannot be written.

    An error or an interrupt leaves everything as it was before.
    """
    if not isinstance(model, Model):
        raise FolderError(f"save takes a model, then a folder, got {type(model).__name__} first")
    if isinstance(model, InferenceModel):
        raise FolderError("the model was prepared for inference; save it before, or build or load it again")
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        raise FolderError(f"tokenizer must be a tokenizer, got {tokenizer!r:.60}; give one that was loaded or built")
    target = path_of(folder).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FolderError(
            f"{folder} exists and is not {'empty' if target.is_dir() else 'a folder'}; choose another name"
        )
    try:
        with draft_of(target) as draft:
            write(model, draft, tokenizer)
            for path in (*draft.iterdir(), draft):
                _sync(path)
            os.replace(draft, target)
            _sync(target.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FolderError(f"{folder} cannot be written: {reason}") from error
    return Path(folder)


def write(model: Model, folder: Path, tokenizer: Tokenizer | None = None) -> None:
    """Write the model's files into an existing folder. FolderError where its modules do not match its spec."""
    _refuse("the model is not what its spec describes, and would be loaded as that; change the spec", changes(model))
    page = _architecture(model.spec)
    (folder / SPEC).write_text(dump(page.resolved()), "utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", "spec": page.hash})
    (folder / WEIGHTS).chmod((folder / SPEC).stat().st_mode)  # safetensors writes files that only the owner can read
    if tokenizer is not None:
        tokenizer.save(folder)


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    kernel: str | Options = KERNEL,
) -> Model:
    """Load the model in `folder`, in evaluation mode.

    Weights keep their saved type unless `dtype` is given; where several types meet in one product, the widest is used.
    The folder of a run gives the model at its end. A Hugging Face folder, with a config.json and no spec.yaml, is
    converted in memory. Raises FolderError for other folders, ConvertError for a Hugging Face folder with faults,
    SpecError for a wrong spec.
    """
    path = model_folder(path_of(folder))
    device, dtype = device_of(device), None if dtype is None else dtype_of(dtype)
    if (path / "config.json").is_file() and not (path / SPEC).is_file():
        from transformer_kit.convert.folder import load_folder

        return _from(path, load_folder(path, device=device, dtype=dtype, kernel=kernel))
    _check_folder(path)
    spec = read(path / SPEC)
    model = assemble(spec, kernel)
    check_tensors(path / WEIGHTS, model, read_shapes(path / WEIGHTS))
    tensors = read_tensors(path / WEIGHTS, device)
    _check_values(path / WEIGHTS, tensors)
    _note_hash(path / WEIGHTS, spec)
    model = transformed(model, load=partial(load_tensors, tensors=tensors, device=device))
    if dtype is not None:
        _check_values(path / WEIGHTS, dict(model.to(dtype).state_dict()), f"does not fit into {words([dtype])}")
    elif (what := agree(model)) is not None:
        spec._source.notes.append(f"{path / WEIGHTS}: {what}")
    return _from(path, model.eval())


def _from(folder: Path, model: Model) -> Model:
    model.folder = folder
    return model


def model_folder(folder: Path) -> Path:
    """The folder itself, or the trained model in the folder of a run. FolderError while that run is unfinished."""
    folder = path_of(folder)
    if (folder / "model" / SPEC).is_file():
        return folder / "model"
    if (folder / RUN).is_file() and not (folder / SPEC).is_file():
        raise FolderError(f"{folder}: the run has not come to its end; `kit train RUN --out {folder} --resume` goes on")
    return folder


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a safetensors file, from its header. FolderError as `read_tensors`."""
    _check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise FolderError(f"{path} cannot be read as safetensors: {error}") from None


def read_tensors(path: Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Load all tensors of a safetensors file. FolderError for another format, a truncated file, or a pickle."""
    _check_readable(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise FolderError(f"{path} cannot be read as safetensors: {error}") from None


def check_tensors(path: Path, model: Model, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise FolderError with each tensor that is missing, extra or of a wrong shape for `model`."""
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    wrong = [f"missing {name} {shape}" for name, shape in expected.items() if name not in shapes]
    wrong += [f"extra {name} {shape}" for name, shape in shapes.items() if name not in expected]
    wrong += [
        f"{name} is {shapes[name]} and should be {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    _refuse(f"{path} does not fit the spec beside it", wrong)


def _architecture(spec: Spec) -> Spec:
    """The model part of a spec."""
    return Spec(kit=spec.kit, plugins=spec.plugins, model=spec.model)


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise FolderError(f"{path} {what}; a model's folder holds {SPEC} and {WEIGHTS}")
    try:
        untrusted.check_links(path)
    except untrusted.FileError as error:
        raise FolderError(str(error)) from None
    missing = [name for name in (SPEC, WEIGHTS) if not (path / name).is_file()]
    if missing:
        pickled = sorted(p.name for p in path.iterdir() if p.suffix in PICKLES)
        hint = f"; {', '.join(pickled)} is a pickle, which can run code and is never read" if pickled else ""
        raise FolderError(f"{path} holds no {' and no '.join(missing)}, so it is not a model's folder{hint}")


def _check_readable(path: Path) -> None:
    """Refuse pickles, by name and by their first bytes: archives of torch and plain pickles."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from None
    if (what := pointer_at(path)) is not None:
        raise FolderError(f"{path} {what}")
    bare = start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if path.suffix in PICKLES or start == b"PK" or (bare and not _has_header(path)):
        raise FolderError(f"{path} is a pickle, which can run code; convert it to safetensors where it comes from")


def _has_header(path: Path) -> bool:
    """Whether a JSON header follows the first eight bytes, whose length may look like the start of a pickle."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _check_values(path: Path, tensors: dict[str, Tensor], what: str = "is damaged") -> None:
    wrong = []
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            wrong.append(f"{name} is of {tensor.dtype}, and weights are floating point".replace("torch.", ""))
        elif tensor.numel() and not all(bound.isfinite() for bound in _bounds(tensor)):
            wrong.append(f"{name} holds NaN or infinite values")
    _refuse(f"{path} {what}", wrong)


def _bounds(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value; NaN if there is one. Allocates nothing, except for the narrowest types."""
    low, high = torch.aminmax(tensor if tensor.itemsize > 1 else tensor.float())
    return low, high


def _refuse(what: str, wrong: list[str]) -> None:
    if wrong:
        shown = wrong[:SHOWN] + ([f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else [])
        raise FolderError(f"{what}:\n  " + "\n  ".join(shown))


def _note_hash(path: Path, spec: Spec) -> None:
    """Warn when the spec changed after the weights were saved, although they still fit."""
    with safe_open(path, framework="pt") as file:
        saved = (file.metadata() or {}).get("spec")
    source = spec._source
    if saved is not None and saved != _architecture(spec).hash and isinstance(source, Source):
        source.notes.append(f"{path}: the spec beside these weights was changed after they were saved")


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders, and commits renames by itself.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
