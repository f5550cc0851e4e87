"""Families of decoders, in from Hugging Face folders: the same logits as `transformers`."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from tests.convert.references import configurations, reference, tokens
from transformer_kit.convert.declaration import declarations
from transformer_kit.convert.folder import load_folder

COVERED = [
    name
    for name, entry in configurations().items()
    if entry["kind"] == "decoder" and entry["config"].get("model_type", name) and entry.get("family") is None
]


def families() -> list[str]:
    """Tiny configurations whose model_type is declared."""
    import transformers

    known = declarations()
    return [
        n
        for n in COVERED
        if getattr(transformers, configurations()[n]["config_class"]).model_type in known
    ]


@pytest.mark.parametrize("name", families())
def test_same_logits(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    theirs.save_pretrained(tmp_path)
    ours = load_folder(tmp_path)
    ids = tokens(name)
    with torch.no_grad():
        expected = theirs(ids, use_cache=False).logits
        got = ours(ids).logits
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= 2e-5 * max(1.0, float(expected.std()))
