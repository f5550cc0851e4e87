"""Lists over the layers: those that a class reads go out as they are, the others as the keys that say them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from registry.options import plain
from tests.convert.references import reference
from transformer_kit import Spec, build
from transformer_kit.convert.declaration import Declaration, declarations
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.convert.folder import spec_of
from transformer_kit.model.model import Model


def with_lists() -> Iterator[Declaration]:
    """Families that derive lists, once each."""
    for name, declaration in declarations().items():
        if declaration.derived and name == declaration.names[0]:
            yield declaration


@pytest.mark.parametrize("declaration", [*with_lists()], ids=lambda d: d.names[0])
def test_a_list_is_private_where_its_class_has_no_such_key(declaration: Declaration) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[declaration.names[0]]()
    private = {key for key, rule in declaration.derived.items() if rule.get("private")}
    assert private == {key for key in declaration.derived if not hasattr(config, key)}


def sparse_at(name: str, sparse: list[int]) -> Model:
    """A tiny model of four layers, mixtures in some of them and dense feed-forwards in the others."""
    page: Any = plain(spec_of(reference(name).config.to_dict()))
    blocks = page["model"]["layers"]["blocks"]
    kinds = {ffn["type"]: ffn for ffn in (block["ffn"] for block in blocks)}
    layers = [{**blocks[0], "ffn": kinds["moe" if i in sparse else "gated"]} for i in range(4)]
    page["model"]["layers"] = {"blocks": layers}
    return build(Spec.of(json.loads(json.dumps(page))))


def test_what_the_class_passes_over_changes_nothing() -> None:
    config = reference("deepseek_v3").config.to_dict()
    assert spec_of({**config, "mlp_layer_types": ["sparse"] * 3}) == spec_of(config)
    assert spec_of({**config, "first_k_dense_replace": 0}) != spec_of(config)


SAID = [
    ("deepseek_v3", [2, 3], {"first_k_dense_replace": 2}),
    ("ernie4_5_moe", [2], {"moe_layer_start_index": 2, "moe_layer_end_index": 2}),
    ("ernie4_5_moe", [1, 3], {"moe_layer_interval": 2}),
    ("qwen3_moe", [0, 3], {"mlp_only_layers": [1, 2]}),
]


@pytest.mark.parametrize(("name", "sparse", "keys"), SAID, ids=[f"{n}-{s}" for n, s, _ in SAID])
def test_layers_go_out_as_the_keys_that_say_them(
    name: str, sparse: list[int], keys: dict[str, Any], tmp_path: Path
) -> None:
    export(sparse_at(name, sparse), tmp_path / "out", family=reference(name).config.model_type)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config | keys == config
    assert "mlp_layer_types" not in config


@pytest.mark.parametrize("name", ["deepseek_v3", "ernie4_5_moe", "glm4_moe", "mistral4-mla-moe", "afmoe"])
def test_layers_that_no_key_says_do_not_go_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="no Hugging Face class computes this model exactly"):
        export(sparse_at(name, [0, 2, 3]), tmp_path / "out", family=reference(name).config.model_type)
    assert not (tmp_path / "out").exists()
