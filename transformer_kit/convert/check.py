"""Whether `transformers` computes of an exported folder what the kit computes of it."""

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
UNCOMPARED = "kit export --no-compare writes it all the same"
ROUNDING = 2e-5
"""How far logits may be apart in float32, for each unit of their standard deviation or for 1, whichever is more."""


@dataclass(frozen=True)
class Comparison:
    """How far logits of `transformers` are off ours."""

    difference: float | None
    """The largest; None when they could not be compared."""
    why_not: str = ""
    """What stood in the way of it."""


def against_transformers(folder: Path, declaration: Declaration) -> Comparison:
    """Compare logits in float32, whatever the weights are stored in, which hides nothing behind rounding.

    The class is the declaration's: some are not among those that AutoModelForCausalLM finds. Raises ConvertError when
    it computes something else, or cannot load the folder.
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
            [f"{name} of transformers {transformers.__version__} computes something else: its logits are up to "
             f"{difference:.2g} off, where rounding explains {allowed:.2g}; nothing is written"],
        )  # fmt: skip
    return Comparison(difference)


@torch.inference_mode()
def _ours(folder: Path, declaration: Declaration) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and the kit's logits of them."""
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
    """Without the bars and the notes of loading."""
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
