"""Values that no config.json should hold: a clear error that names the key, whatever a declaration does with it."""

from typing import Any

import pytest

pytest.importorskip("transformers")

from tests.convert.references import configurations
from tests.convert.test_parity import config_class
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.folder import model_of, spec_of
from transformer_kit.convert.page import declaration_of

STRANGE = ("x", 0, -1, True, [1], {"a": 1})
NAMES = (
    "llama-mha",
    "deepseek_v2-lite",
    "falcon-7b-mqa",
    "gemma2",
    "gemma4-text-dense",
    "granite",
    "minicpm3",
    "modernbert-decoder",
)
"""Configurations that between them use every form of a template."""


def config_of(name: str) -> dict[str, Any]:
    config: dict[str, Any] = config_class(name)(**configurations()[name]["config"]).to_dict()
    return config


@pytest.mark.parametrize("name", NAMES)
def test_strange_values_are_taken_or_refused(name: str) -> None:
    """Any other error would reach the user as a traceback."""
    config = config_of(name)
    refused = 0
    for key in config.keys() - {"model_type", "architectures"}:
        for value in STRANGE:
            try:
                spec_of({**config, key: value})
            except ConvertError:
                refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gemma2", "query_pre_attn_scalar", 0),
        ("gemma2", "query_pre_attn_scalar", -1),
        ("granite", "logits_scaling", 0),
        ("minicpm3", "scale_depth", "x"),
        ("deepseek_v2-lite", "n_shared_experts", [1]),
        ("llama-mha", "rope_parameters", [1]),
        ("gemma4-text-dense", "per_layer_config", 1.5),
        ("gemma4-text-dense", "per_layer_config", {"0": 3}),
        ("gemma2", "hidden_activation", "tanhh"),
    ],
)
def test_the_key_is_named(name: str, key: str, value: object) -> None:
    with pytest.raises(ConvertError, match=f"{key}: .*{str(value)[:3]}".replace("[", r"\[").replace("{", r"\{")):
        spec_of({**config_of(name), key: value})


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("llama-mha", {"num_attention_heads": 0}, "num_attention_heads: 0: mixer.n_heads: must be at least 1, got 0"),
        ("llama-mha", {"num_key_value_heads": 3}, "num_key_value_heads: 3, "),
        ("llama-mha", {"head_dim": 7}, "head_dim: 7, "),
        ("llama-mha", {"rms_norm_eps": -1}, "rms_norm_eps: -1: norm.eps: must be more than 0.0, got -1"),
        ("gemma2", {"sliding_window": 0}, "sliding_window: 0: mixer.window: must be at least 1, got 0"),
        ("gemma4-text-dense", {"attention_bias": True}, "attention_bias: True, "),
        ("deepseek_v3", {"topk_group": 1}, "topk_group: 1: ffn.router: top_k must be at most the experts"),
        ("qwen3_moe", {"num_experts_per_tok": 99}, "num_experts_per_tok: 99, "),
        ("falcon-7b-mqa", {"num_attention_heads": 5}, "num_attention_heads: 5"),
    ],
)
def test_what_the_spec_refuses_is_told_in_the_words_of_the_config(
    name: str, changes: dict[str, Any], told: str
) -> None:
    config = {**config_of(name), **changes}
    with pytest.raises(ConvertError) as caught:
        model_of(config, declaration_of(config))
    assert len(caught.value.problems) == 1
    assert told in caught.value.problems[0]
    assert str(caught.value).startswith("config.json: ")


def test_a_default_is_told_by_the_key_that_gives_it() -> None:
    config = {"model_type": "bloom", "hidden_size": 48, "n_layer": 2, "num_attention_heads": 0, "vocab_size": 99}
    with pytest.raises(ConvertError, match=r"num_attention_heads: 0: mixer.n_heads: must be at least 1"):
        spec_of(config)
