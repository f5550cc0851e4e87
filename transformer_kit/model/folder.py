"""A trained model as a folder: `spec.yaml`, `model.safetensors`, `tokenizer.json`.

    save(model, folder, tokenizer)     all or nothing: written beside, then renamed
    load(folder)                       the model, its weights checked name by name and shape by shape

Errors: FolderError, a ValueError, says what is wrong with a folder and what it should hold.
"""

import os
import shutil
import tempfile
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from registry.contracts import Tokenizer
from registry.options import Options
from transformer_kit.model.build import KERNEL, assemble
from transformer_kit.model.model import Model
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import Spec

SPEC, WEIGHTS = "spec.yaml", "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class FolderError(ValueError):
    """A folder is not a model's, or its files disagree."""


def save(model: Model, folder: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write the model's folder. Raises FolderError when there is something at that place already."""
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FolderError(f"{target} exists and is not empty; choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        write(model, draft, tokenizer)
        draft.chmod(0o755)
        os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def write(model: Model, folder: Path, tokenizer: Tokenizer | None = None) -> None:
    """Write the model's files into a folder that exists."""
    page = model_page(model.spec)
    (folder / SPEC).write_text(yaml.safe_dump(page, sort_keys=False, allow_unicode=True), "utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", "spec": model.spec.hash})
    if tokenizer is not None:
        tokenizer.save(folder)


def model_page(spec: Spec) -> dict[str, object]:
    """The canonical form of the model's part of a page."""
    return {k: v for k, v in spec.resolved().items() if k in Spec.model_fields}


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    kernel: str | Options = KERNEL,
) -> Model:
    """The model in `folder`, in evaluation mode; weights keep the type they were saved in unless `dtype` is given.

    Raises FolderError for what is not a model's folder, SpecError for a wrong spec in it.
    """
    path = Path(folder)
    _check_folder(path)
    model = assemble(read(path / SPEC), kernel)
    tensors = read_tensors(path / WEIGHTS, device)
    check_tensors(path / WEIGHTS, model, {name: tuple(t.shape) for name, t in tensors.items()})
    model.load_state_dict(tensors, strict=True, assign=True)
    model = model if dtype is None else model.to(dtype)
    return model.eval()


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise FolderError(f"{path} is not a folder; a model's folder holds {SPEC} and {WEIGHTS}")
    missing = [name for name in (SPEC, WEIGHTS) if not (path / name).is_file()]
    if missing:
        pickled = sorted(p.name for p in path.iterdir() if p.suffix in PICKLES)
        hint = f"; {', '.join(pickled)} is a pickle, which can run code and is never read" if pickled else ""
        raise FolderError(f"{path} holds no {' and no '.join(missing)}, so it is not a model's folder{hint}")


def read_tensors(path: Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises FolderError when it is not one, is cut short, or is a pickle."""
    if path.suffix in PICKLES:
        raise FolderError(f"{path} is a pickle, which can run code; convert it to safetensors where it comes from")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise FolderError(f"{path} cannot be read as safetensors: {error}") from None


def check_tensors(path: Path, model: Model, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise FolderError, naming every tensor that is missing, extra or misshapen for `model`."""
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    wrong = [f"missing {name} {shape}" for name, shape in expected.items() if name not in shapes]
    wrong += [f"extra {name} {shape}" for name, shape in shapes.items() if name not in expected]
    wrong += [
        f"{name} is {shapes[name]} and should be {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    if wrong:
        shown = wrong[:20] + ([f"and {len(wrong) - 20} more"] if len(wrong) > 20 else [])
        raise FolderError(f"{path} does not fit the spec beside it:\n  " + "\n  ".join(shown))
