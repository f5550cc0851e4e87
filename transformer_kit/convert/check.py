"""Compare the logits of an exported folder in `transformers` with the kit's logits."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.folder import load_folder

TOKENS = 16
UNCOMPARED = "kit export --no-compare skips the comparison"
ROUNDING = 2e-5
"""Tolerance of logits in float32, multiplied by their standard deviation if that exceeds 1."""


@dataclass(frozen=True)
class Comparison:
    """Result of comparing logits with `transformers`."""

    difference: float | None
    """Maximum absolute difference; None when they were not compared."""
    why_not: str = ""
    """Reason why they were not compared."""


def against_transformers(folder: Path, declaration: Declaration) -> Comparison:
    """Compare logits in float32, for any dtype of the weights, so that rounding hides no error.

    The declaration names the class, because AutoModelForCausalLM does not know all of them. Raises ConvertError if the
    logits differ, or if the class cannot load the folder.
    """
    if find_spec("transformers") is None:
        return Comparison(None, "transformers is not installed")
    import transformers

    name = (declaration.classes or ["no class"])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        return Comparison(None, f"transformers {transformers.__version__} has no class {name}")
    tokens, ours = _ours(folder, declaration)
    try:
        with _quiet(transformers.logging):
            theirs = _theirs(kind, folder, declaration.attention, tokens)
    except MemoryError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConvertError(
            "export", [f"{name} of transformers {transformers.__version__} fails on it: {reason:.300}; {UNCOMPARED}"]
        ) from error
    if theirs.shape != ours.shape:
        raise ConvertError("export", [f"{name} gives logits {tuple(theirs.shape)}, the kit {tuple(ours.shape)}"])
    difference, allowed = float((ours - theirs).abs().max()), ROUNDING * max(1.0, float(ours.std()))
    if not difference <= allowed:
        raise ConvertError(
            "export",
            [f"{name} of transformers {transformers.__version__} gives other logits: the largest difference is "
             f"{difference:.2g}, rounding explains {allowed:.2g}; nothing was written"],
        )  # fmt: skip
    return Comparison(difference)


@torch.inference_mode()
def _ours(folder: Path, declaration: Declaration) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens, and the kit's logits for them."""
    model = load_folder(folder, dtype=torch.float32, declaration=declaration)
    spec = model.spec.model
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, spec.vocab_size, (2, min(TOKENS, spec.max_seq_len)), generator=generator)
    return tokens, model(tokens).logits


@torch.inference_mode()
def _theirs(kind: Any, folder: Path, attention: str, tokens: torch.Tensor) -> torch.Tensor:
    model = kind.from_pretrained(
        str(folder), attn_implementation=attention, dtype=torch.float32, local_files_only=True
    ).eval()
    logits: torch.Tensor = model(tokens, use_cache=False).logits
    return logits


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Context without progress bars and log messages."""
    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
