"""Families of decoders, in from Hugging Face folders: the same logits as `transformers`."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from tests.convert.references import configurations, reference, tokens
from transformer_kit.convert.declaration import declarations
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.folder import load_folder, spec_of

REFUSED = {
    "gemma4-text-ple-kvshare": "num_kv_shared_layers",
    "gemma4-text-moe": "enable_moe_block",
    "gemma3-bidirectional": "use_bidirectional_attention",
}
"""Configurations of declared families that have no part yet, and the key that says so."""
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
        if n not in REFUSED and getattr(transformers, configurations()[n]["config_class"]).model_type in known
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


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    import transformers

    entry = configurations()[name]
    config = getattr(transformers, entry["config_class"])(**json.loads(json.dumps(entry["config"])))
    with pytest.raises(ConvertError, match=REFUSED[name]):
        spec_of(config.to_dict())
