"""The engine: turns a spec into a model, trains it, generates with it. Knows contracts, never a part by its name.

from transformer_kit import build
model = build("tutorial")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformer_kit.model import card

if TYPE_CHECKING:
    from transformer_kit.data.tokenizer_file import load_tokenizer
    from transformer_kit.model.build import build
    from transformer_kit.model.folder import load, save
    from transformer_kit.model.model import Model
    from transformer_kit.spec.errors import SpecError
    from transformer_kit.spec.read import read
    from transformer_kit.spec.schema import ModelSpec, RunSpec, Spec
    from transformer_kit.transform.prepare import prepare_for_inference

__version__ = "0.1.0"
__all__ = [
    "Model", "ModelSpec", "RunSpec", "Spec", "SpecError", "build", "load", "load_tokenizer", "prepare_for_inference",
    "read", "save",
]  # fmt: skip

_HOME = {
    "build": "model.build",
    "load": "model.folder",
    "load_tokenizer": "data.tokenizer_file",
    "prepare_for_inference": "transform.prepare",
    "save": "model.folder",
    "Model": "model.model",
    "SpecError": "spec.errors",
    "read": "spec.read",
    "ModelSpec": "spec.schema",
    "RunSpec": "spec.schema",
    "Spec": "spec.schema",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `kit --help` need not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'transformer_kit' has no attribute '{name}'")
    return getattr(import_module(f"transformer_kit.{_HOME[name]}"), name)


def _check_registry() -> None:
    """Say so plainly when another package called `registry` hides ours."""
    from importlib.util import find_spec
    from pathlib import Path

    found = find_spec("registry")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    if not any((Path(folder) / "contracts.py").is_file() for folder in folders):
        where = (found and found.origin) or next(iter(folders), "none")
        raise ImportError(f"transformer_kit needs its own package `registry`, but Python finds another one: {where}")


def _card_of(spec: Any) -> Any:
    """The card of a spec, imported when it is first asked for."""
    from transformer_kit.cost.card import card

    return card(spec)


_check_registry()
card.card_of = _card_of
