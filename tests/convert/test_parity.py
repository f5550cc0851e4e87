"""Families of decoders, in from Hugging Face folders and out to them: the same logits as `transformers`."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from tests.convert.references import configurations
from tests.convert.twins import (
    at_once,
    decoded,
    generated_alike,
    loaded_in_place,
    out_and_back,
    padded_on_the_left,
    same_tensors,
    twins,
)
from transformer_kit.convert.declaration import declarations
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.folder import spec_of
from transformer_kit.generate.reading import settled

REFUSED = {
    "gemma4-text-ple-kvshare": "num_kv_shared_layers",
    "gemma4-text-moe": "enable_moe_block",
    "gemma3-bidirectional": "use_bidirectional_attention",
    "granitemoehybrid": "layer_types: 'linear_attention' is not known",
}
"""Configurations of declared families that have no part yet, and the key that says so."""
NOT_DECLARED = {
    "mixers with a recurrent state or a convolution": {
        *("mamba", "mamba2", "falcon_mamba", "rwkv4", "xlstm", "jamba", "bamba", "falcon_h1"),
        *("nemotron_h", "zamba", "zamba2", "recurrent_gemma", "lfm2", "lfm2_moe", "lfm3", "qwen3_next", "qwen3_5-text"),
        *("qwen3_5_moe-text", "olmo_hybrid", "kimi_linear", "minimax", "bailing_hybrid", "zaya"),
    },
    "several residual streams, or inputs of each layer": {"gemma3n-text", "deepseek_v4", "deepseek_v4-small"},
    "keys chosen by an index": {"deepseek_v32-dsa", "glm_moe_dsa"},
    "layers of forms that no other family has": {
        *("longcat_flash", "jetmoe", "doge", "gpt_neox_japanese"),
    },
}
"""Configurations of families that have no declaration yet, by what they need."""
UNSETTLED = {"phi3-longrope-long", "phi4-mini-partial"}
"""Their frequencies change when the text passes the original length."""
LEAVE_AS = {
    "phi3": "llama",
    "phi3-longrope-long": "llama",
    "phi3-longrope-short": "llama",
    "mistral-nemo-headdim": "llama",
    "hyperclovax-prenorm": "llama",
    "internlm3": "llama",
    "iquestcoder": "llama",
    "seed_oss": "qwen2",
    "cwm": "ministral",
    "codegen": "gptj",
    "glm4_moe_lite": "deepseek_v3",
    "granitemoehybrid-dense": "granite",
    "hy_v3": "glm4_moe",
    "solar_open": "glm4_moe",
}
"""Configurations whose mathematics is a plainer family's as well, which is then what `export` takes."""


def families() -> list[str]:
    """Tiny configurations whose model_type is declared."""
    known = declarations()
    decoders = [name for name, entry in configurations().items() if entry["kind"] == "decoder" and name not in REFUSED]
    return [name for name in decoders if config_class(name).model_type in known]


def config_class(name: str) -> Any:
    """The class in `transformers` of a configuration."""
    import transformers

    return getattr(transformers, configurations()[name]["config_class"])


@pytest.mark.parametrize("name", families())
def test_in_and_out(name: str, tmp_path: Path) -> None:
    """One test for all, because building the reference takes longer than any check."""
    pair = twins(name, tmp_path)
    own = pair.theirs.config.model_type
    assert pair.expected.std() > 0.1
    assert at_once(pair) <= pair.tolerance
    same_tensors(loaded_in_place(pair), pair.ours)
    assert padded_on_the_left(pair) <= pair.tolerance
    assert decoded(pair) <= pair.tolerance
    if name in UNSETTLED:
        assert not settled(pair.ours)
        assert generated_alike(pair)
    difference, taken = out_and_back(pair)
    assert (difference <= pair.tolerance, taken) == (True, LEAVE_AS.get(name, own))
    if taken != own:
        assert out_and_back(pair, own)[0] <= pair.tolerance


def test_every_configuration_is_declared_or_said_not_to_be() -> None:
    known = declarations()
    decoders = {name for name, entry in configurations().items() if entry["kind"] == "decoder"}
    missing = {name for name in decoders if config_class(name).model_type not in known}
    assert missing == set().union(*NOT_DECLARED.values())


def test_every_declared_family_is_measured() -> None:
    kinds = {config_class(name).model_type for name in families()}
    assert {d.names[0] for d in declarations().values()} - kinds == set()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    config = config_class(name)(**json.loads(json.dumps(configurations()[name]["config"])))
    with pytest.raises(ConvertError, match=REFUSED[name]):
        spec_of(config.to_dict())
