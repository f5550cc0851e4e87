"""One tensor of the model that a folder stores more than once: taken when all agree, refused by name otherwise."""

from pathlib import Path

import pytest
import torch

from tests.convert.test_folders import edit, edit_weights, folder, refused
from transformer_kit import Spec, build, load
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.convert.importing import import_folder
from transformer_kit.testing import strong_init

__all__ = ["folder"]

NEOX = {
    "model": {
        "vocab_size": 40,
        "d_model": 24,
        "max_seq_len": 32,
        "position": {"type": "rope", "partial_rotary_factor": 1.0},
        "norm": "layer_norm",
        "layers": {
            "count": 2,
            "block": {
                "type": "parallel",
                "norms": 2,
                "mixer": {"type": "attention", "n_heads": 4, "bias": ["q", "k", "v", "out"]},
                "ffn": {"type": "mlp", "d_ff": 32},
            },
        },
    }
}
OLD, NEW, TABLE = "embed_out.weight", "lm_head.weight", "gpt_neox.embed_in.weight"


@pytest.fixture
def neox(tmp_path: Path) -> Path:
    """A folder of a GPT-NeoX, whose head has an old and a new name."""
    model = build(Spec.of(NEOX))
    strong_init(model)
    export(model, tmp_path / "neox", family="gpt_neox")
    return tmp_path / "neox"


def other(tensors: dict[str, torch.Tensor]) -> None:
    tensors[OLD], tensors[NEW] = tensors[OLD].clone(), tensors[OLD] + 1


def test_two_heads_that_differ(neox: Path, tmp_path: Path) -> None:
    edit_weights(neox, other)
    assert f"{OLD} and {NEW} are two names of one tensor, and the two differ" in refused(neox, tmp_path / "out")
    with pytest.raises(ConvertError, match="two names of one tensor"):
        load(neox)


def test_two_heads_that_agree(neox: Path, tmp_path: Path) -> None:
    edit_weights(neox, lambda t: t.update({NEW: t[OLD].clone()}))
    import_folder(neox, tmp_path / "out")


@pytest.mark.parametrize("name", [OLD, NEW])
def test_tied_by_the_config_and_not_by_the_weights(neox: Path, tmp_path: Path, name: str) -> None:
    edit(neox, lambda c: c.update(tie_word_embeddings=True))
    edit_weights(neox, lambda t: t.update({name: t.pop(OLD) + 1}))
    assert f"ties {name} to the embedding table {TABLE}, and the two differ" in refused(neox, tmp_path / "out")


def test_tied_and_every_name_is_looked_at(neox: Path, tmp_path: Path) -> None:
    """The first agrees with the table; the second does not."""
    edit(neox, lambda c: c.update(tie_word_embeddings=True))
    edit_weights(neox, lambda t: t.update({OLD: t[TABLE].clone(), NEW: t[TABLE] + 1}))
    message = refused(neox, tmp_path / "out")
    assert NEW in message
    assert OLD not in message


@pytest.mark.parametrize("kind", [torch.float64, torch.long])
def test_tied_and_stored_twice_in_two_types(folder: Path, tmp_path: Path, kind: torch.dtype) -> None:
    """Equal numbers are equal; whole numbers are no weights."""
    edit(folder, lambda c: c.update(tie_word_embeddings=True))
    edit_weights(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].to(kind)}))
    if kind is torch.float64:
        import_folder(folder, tmp_path / "out")
    else:
        assert "the two differ" in refused(folder, tmp_path / "out")


BERT = {
    "model": {
        "vocab_size": 40,
        "d_model": 24,
        "max_seq_len": 32,
        "embedding": {"type": "token", "types": 2},
        "position": {"type": "learned", "norm": "layer_norm"},
        "final_norm": "none",
        "head": {"type": "transformed", "tied": True},
        "layers": {
            "count": 1,
            "block": {
                "type": "post_norm",
                "mixer": {"type": "attention", "n_heads": 4, "bias": ["q", "k", "v", "out"]},
                "ffn": {"type": "mlp", "d_ff": 32},
            },
        },
    }
}


@pytest.mark.parametrize(("stored", "tensor"), [
    ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
    ("cls.predictions.decoder.bias", "cls.predictions.bias"),
])  # fmt: skip
def test_a_decoder_that_berts_store_beside_its_table(tmp_path: Path, stored: str, tensor: str) -> None:
    model = build(Spec.of(BERT))
    strong_init(model)
    export(model, tmp_path / "bert", family="bert")
    edit_weights(tmp_path / "bert", lambda t: t.update({stored: t[tensor].clone()}))
    assert torch.equal(load(tmp_path / "bert").head.bias, model.head.bias)
    edit_weights(tmp_path / "bert", lambda t: t.update({stored: t[tensor] + 1}))
    with pytest.raises(ConvertError, match=stored):
        load(tmp_path / "bert")
