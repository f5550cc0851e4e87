"""What the tiny configurations leave at its default: other values of a family's keys, in and out; older files."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")

from tests.convert.references import reference, tokens
from transformer_kit import Spec, build
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.convert.folder import load_folder, spec_of
from transformer_kit.testing import strong_init

LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
YARN = {"rope_type": "yarn", "factor": 8.0, "rope_theta": 500.0, "original_max_position_embeddings": 16}
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ("gpt2", {"scale_attn_weights": False, "n_inner": 80, "activation_function": "relu"}),
    ("gpt_bigcode-mqa", {"multi_query": False}),
    ("gpt_neo", {"attention_types": [[["global"], 2], [["local"], 2]], "intermediate_size": 80}),
    ("gpt_neox", {"use_parallel_residual": False, "attention_bias": False}),
    ("gpt_neox", {"rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}}),
    ("opt", {"enable_bias": False, "layer_norm_elementwise_affine": False, "activation_function": "gelu"}),
    ("opt", {"_remove_final_layer_norm": True, "tie_word_embeddings": False}),
    ("bloom", {"apply_residual_connection_post_layernorm": True, "hidden_size": 96, "n_head": 6}),
    ("mpt", {"n_heads": 6, "attn_config": {"clip_qkv": 1.0, "softmax_scale": 0.3}}),
    ("falcon-7b-mqa", {"multi_query": False, "rope_parameters": LINEAR}),
    ("falcon-40b-newarch", {"num_ln_in_parallel_attn": 1, "bias": True}),
    ("falcon-rw-alibi", {"num_attention_heads": 6, "hidden_size": 96}),
    ("phi2", {"qk_layernorm": True}),
    ("stablelm-3b", {"use_parallel_residual": True, "rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}}),
    ("starcoder2", {"sliding_window": None, "use_bias": False, "tie_word_embeddings": False}),
    ("nemotron", {"mlp_bias": True, "attention_bias": True}),
    ("cohere", {"use_qk_norm": True}),
    ("cohere2-nope", {"layer_types": None, "num_hidden_layers": 5}),
    ("olmo", {"clip_qkv": 0.5}),
    ("biogpt", {"scale_embedding": False}),
    ("xglm", {"scale_embedding": False}),
    ("afmoe", {"num_shared_experts": 0}),
    ("exaone_moe", {"num_shared_experts": 0}),
    ("solar_open", {"n_shared_experts": 0}),
    ("solar_open", {"num_key_value_heads": 4, "head_dim": 12}),
    ("deepseek_v3", {"n_shared_experts": 0}),
    ("modernbert-decoder", {"norm_bias": True, "mlp_bias": True, "attention_bias": True, "classifier_bias": True}),
    ("modernbert-decoder", {"sliding_window": 3}),
    ("qwen2_moe", {"decoder_sparse_step": 2}),
    ("qwen2_moe", {"mlp_only_layers": [0], "qkv_bias": False, "norm_topk_prob": True}),
    ("qwen2_moe", {"use_sliding_window": True, "sliding_window": 5, "num_hidden_layers": 4, "max_window_layers": 2}),
    ("qwen3_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [1], "num_hidden_layers": 4}),
    ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 5, "attention_bias": True, "norm_topk_prob": True}),
    ("ernie4_5_moe", {"moe_layer_interval": 2, "num_hidden_layers": 4, "moe_layer_start_index": 0}),
    ("ernie4_5_moe", {"use_bias": True}),
    (
        "ernie4_5_moe",
        {"moe_num_shared_experts": 0, "moe_layer_start_index": 0, "moe_layer_end_index": 1, "use_bias": True},
    ),
    ("seed_oss", {"attention_out_bias": True}),
    ("seed_oss", {"attention_out_bias": True, "attention_bias": False, "mlp_bias": True}),
    ("seed_oss", {"attention_bias": False}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "tie_word_embeddings": True}),
    ("qwen3", {"attention_bias": True, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
    ("mixtral", {"sliding_window": 5, "hidden_act": "gelu", "tie_word_embeddings": True, "head_dim": 20}),
    ("olmoe", {"clip_qkv": 0.5, "norm_topk_prob": True, "attention_bias": True}),
    ("gpt_oss", {"swiglu_limit": 0.5, "attention_bias": False, "layer_types": ["full_attention"] * 4}),
    ("phimoe", {"lm_head_bias": False, "attention_bias": False, "sliding_window": 5, "router_jitter_noise": 0.2}),
    ("minimax_m2", {"rotary_dim": 16, "sliding_window": None}),
    ("hunyuan_v1_moe", {"attention_bias": True, "tie_word_embeddings": True}),
    ("deepseek_v2-lite", {"q_lora_rank": 24, "attention_bias": True}),
    (
        "deepseek_v2-lite",
        {"topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2, "first_k_dense_replace": 0},
    ),
    ("deepseek_v2-lite", {"rope_parameters": LINEAR, "routed_scaling_factor": 2.0}),
    ("deepseek_v3", {"q_lora_rank": None, "attention_bias": True, "norm_topk_prob": False}),
    ("deepseek_v3", {"n_group": 1, "topk_group": 1, "rope_interleave": False, "first_k_dense_replace": 2}),
    ("deepseek_v3", {"rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}}),
    ("gemma", {"attention_bias": True, "hidden_act": "gelu", "head_dim": 12}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 7}),
    ("gemma2", {"layer_types": ["full_attention"] * 3 + ["sliding_attention"], "hidden_activation": "silu"}),
    ("gemma3-text", {"layer_types": ["full_attention"] * 4, "query_pre_attn_scalar": 7, "attention_bias": True}),
    ("gemma3-text", {"final_logit_softcapping": 3.0, "tie_word_embeddings": False}),
    ("phi3", {"sliding_window": 5, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}}),
    ("granite", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    ("granite", {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0}),
    ("granitemoe", {"attention_bias": True, "tie_word_embeddings": True, "residual_multiplier": 1.0}),
    ("granitemoeshared", {"shared_intermediate_size": 0, "attention_bias": True}),
    ("bert-causal", {"hidden_act": "relu", "type_vocab_size": 3, "layer_norm_eps": 0.01}),
    ("glm-4-9b", {"attention_bias": False, "rope_parameters": {**LINEAR, "partial_rotary_factor": 0.25}}),
    ("glm4-0414", {"attention_bias": False, "tie_word_embeddings": True, "head_dim": 20}),
    ("glm4_moe", {"use_qk_norm": False, "attention_bias": False, "n_group": 1, "first_k_dense_replace": 0}),
    ("llama4-text", {"use_qk_norm": False, "attn_temperature_tuning": False, "attention_bias": True}),
    ("llama4-text", {"interleave_moe_layer_step": 1, "no_rope_layer_interval": 4, "num_experts_per_tok": 2}),
    ("llama4-text", {"moe_layers": [0, 3], "no_rope_layers": [1, 1, 0, 1], "tie_word_embeddings": True}),
    ("exaone4", {"sliding_window_pattern": 4, "tie_word_embeddings": True}),
    ("modernbert-decoder", {"layer_types": None, "decoder_bias": False, "tie_word_embeddings": False}),
]


def agrees(theirs: Any, other: Any, ids: torch.Tensor) -> None:
    with torch.no_grad():
        expected, got = theirs(ids, use_cache=False).logits, other(ids).logits
    assert (got - expected).abs().max() <= 2e-5 * max(1.0, float(expected.std()))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # no shared experts, as `transformers` has them
@pytest.mark.parametrize(("name", "changes"), CHANGES, ids=[f"{n}-{'-'.join(c)}" for n, c in CHANGES])
def test_in_and_out(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs: Any = reference(name, **changes)
    theirs.save_pretrained(tmp_path / "in")
    ours = load_folder(tmp_path / "in")
    agrees(theirs, ours, tokens(name))
    export(ours, tmp_path / "out", family=theirs.config.model_type)
    attention = theirs.config._attn_implementation
    again = type(theirs).from_pretrained(tmp_path / "out", attn_implementation=attention)
    agrees(theirs, again.eval(), tokens(name))


OPEN = {
    "llama": ({"norm": "rms_norm"}, {"type": "pre_norm", "ffn": {"type": "gated"}}),
    "mixtral": ({"norm": "rms_norm"}, {"type": "pre_norm", "ffn": {
        "type": "moe", "n_experts": 3, "router": {"type": "softmax", "top_k": 2}, "expert": {"type": "gated"}}}),
    "gpt_neox": ({}, {"type": "parallel", "norms": 2, "ffn": {"type": "mlp"}}),
}  # fmt: skip
"""Models whose widths their specs leave to the parts, by the family that has a key for it."""


@pytest.mark.parametrize("family", OPEN)
def test_widths_that_the_page_leaves_open_are_written(family: str, tmp_path: Path) -> None:
    """The classes have other rules for them, or none."""
    model, block = OPEN[family]
    sizes = {"vocab_size": 40, "d_model": 24, "max_seq_len": 32, "position": "rope"}
    bias = ["q", "k", "v", "out"] if family == "gpt_neox" else []
    mixer = {"type": "attention", "n_heads": 4, "bias": bias}
    layers = {"count": 2, "block": {"mixer": mixer, **block}}
    ours = build(Spec.of({"model": {**sizes, **model, "layers": layers}}))
    strong_init(ours)
    found = export(ours, tmp_path / "out", family=family, compare=True)
    assert found.comparison.difference is not None
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["intermediate_size"] == (96 if family == "gpt_neox" else 256)


@pytest.mark.parametrize("kind", ["default", "linear"])
def test_llama_turns_all_of_a_head(kind: str) -> None:
    """Its class passes over the key, or breaks."""
    config = reference("llama-mha").config.to_dict()
    config["rope_parameters"] = {**LINEAR, "rope_type": kind, "partial_rotary_factor": 0.5}
    with pytest.raises(ConvertError, match=r"rope_parameters.partial_rotary_factor: 0.5 is not known"):
        spec_of(config)
    config["rope_parameters"]["partial_rotary_factor"] = 1.0
    assert spec_of(config).model.position.partial_rotary_factor == 1.0


@pytest.mark.parametrize("late", [0, 2, 28])
@pytest.mark.parametrize("windowed", [False, True])
def test_which_layers_of_qwens_mixtures_have_windows(late: int, windowed: bool) -> None:
    """Where an older file leaves the list to its class, it is as the class makes it."""
    keys = {"num_hidden_layers": 4, "use_sliding_window": windowed, "sliding_window": 5, "max_window_layers": late}
    config = reference("qwen2_moe", **keys).config.to_dict()
    listed = config.pop("layer_types")
    spec = spec_of(config)
    assert spec == spec_of({**config, "layer_types": listed})
    expected = [5 if kind == "sliding_attention" else None for kind in listed]
    assert [block.mixer.window for block in spec.model.layers.blocks] == expected


def test_llama_4_tunes_its_temperature_where_the_first_files_say_four() -> None:
    config = reference("llama4-text").config.to_dict()
    assert config["attn_temperature_tuning"] is True
    assert spec_of({**config, "attn_temperature_tuning": 4}) == spec_of(config)
    assert spec_of({**config, "attn_temperature_tuning": False}) != spec_of(config)


def test_bert_is_a_decoder_where_it_says_so() -> None:
    config = reference("bert-causal").config.to_dict()
    for changes in ({"is_decoder": False}, {"add_cross_attention": True}, {"tie_word_embeddings": False}):
        with pytest.raises(ConvertError, match=f"{next(iter(changes))}: .* changes the model in a way"):
            spec_of({**config, **changes})
    del config["is_decoder"]
    with pytest.raises(ConvertError, match="its default False changes the model in a way"):
        spec_of(config)


def test_gemma_3_does_not_bound_its_scores(tmp_path: Path) -> None:
    """Its class passes over the key, which Gemma 2's heeds."""
    config = {**reference("gemma3-text").config.to_dict(), "attn_logit_softcapping": 5.0}
    with pytest.raises(ConvertError, match=r"attn_logit_softcapping: 5.0 changes the model"):
        spec_of(config)
    spec = spec_of({**config, "attn_logit_softcapping": None})
    export(build(spec), tmp_path / "plain", family="gemma3_text")
    for mixer in _mixers(bounded := json.loads(json.dumps(spec.resolved()))):
        mixer["softcap"] = 5.0
    with pytest.raises(ConvertError, match="softcap"):
        export(build(Spec.of(bounded)), tmp_path / "bounded", family="gemma3_text")


def _mixers(page: Any) -> Iterator[dict[str, Any]]:
    """Every mapping under a key `mixer`."""
    for key, value in page.items() if isinstance(page, dict) else enumerate(page if isinstance(page, list) else []):
        if key == "mixer":
            yield value
        yield from _mixers(value)


@pytest.mark.parametrize(
    "changes", [{"new_decoder_architecture": True, "parallel_attn": False}, {"num_ln_in_parallel_attn": 2}]
)
def test_what_falcons_class_breaks_on(changes: dict[str, Any]) -> None:
    config = {**reference("falcon-7b-mqa").config.to_dict(), **changes}
    with pytest.raises(ConvertError, match="is not supported by the family's class"):
        spec_of(config)


def test_biases_lose_digits_as_theirs_do(tmp_path: Path) -> None:
    """Beyond 256 tokens bfloat16 cannot hold every position, and slopes of six heads are no powers of two."""
    theirs: Any = reference("falcon-rw-alibi", num_attention_heads=6, hidden_size=96, max_position_embeddings=400)
    theirs.save_pretrained(tmp_path)
    agrees(theirs, load_folder(tmp_path), tokens("falcon-rw-alibi", batch=1, length=400))


def test_falcons_export_is_compared_with_the_attention_that_is_right(tmp_path: Path) -> None:
    """Its eager attention adds ALiBi twice."""
    theirs: Any = reference("falcon-rw-alibi")
    theirs.save_pretrained(tmp_path / "in")
    found = export(load_folder(tmp_path / "in"), tmp_path / "out", compare=True)
    assert found.declaration.names == ["falcon"]
    assert found.comparison.difference is not None


def bare(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a model without its head is saved, with the masks that older files held."""
    kept = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    return {**kept, "h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)}


def old_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """NeoX's head under the name it had."""
    return {("embed_out.weight" if name == "lm_head.weight" else name): t for name, t in tensors.items()}


def same(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors


OLD: list[tuple[str, dict[str, Any], Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]]] = [
    ("gpt2", {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 32, "n_ctx": 32}, bare),
    (
        "gpt_neox",
        {"hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 3, "num_attention_heads": 4,
         "max_position_embeddings": 64, "rotary_pct": 0.25, "rotary_emb_base": 10000, "tie_word_embeddings": False},
        old_head,
    ),
    ("bloom", {"n_embed": 48, "n_layer": 3, "num_attention_heads": 4, "offset_alibi": 100, "seq_length": 32}, same),
    (
        "modernbert-decoder",
        {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
         "max_position_embeddings": 64, "local_attention": 10, "global_attn_every_n_layers": 3,
         "global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
        same,
    ),
    (
        "modernbert-decoder",
        {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
         "max_position_embeddings": 64, "local_attention": 11, "global_attn_every_n_layers": 3,
         "global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
        same,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "keys", "change"), OLD, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(OLD)])
def test_older_files(
    name: str,
    keys: dict[str, Any],
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    """Keys and names as files on the hub have them."""
    theirs: Any = reference(name)
    theirs.save_pretrained(tmp_path)
    tensors = change(load_file(tmp_path / "model.safetensors"))
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"model_type": theirs.config.model_type, "vocab_size": 99, **keys}
    (tmp_path / "config.json").write_text(json.dumps(config))
    agrees(theirs, load_folder(tmp_path), tokens(name))


NEW = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
STRETCHED = {**NEW, "original_max_position_embeddings": 32}
SIZES = {
    "model_type": "llama", "vocab_size": 99, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip


@pytest.mark.parametrize("word", ["rope_type", "type"])
def test_both_spellings_of_rotary_settings_and_of_the_type(word: str) -> None:
    new = {**SIZES, "dtype": "bfloat16", "rope_parameters": STRETCHED}
    scaling = {word if k == "rope_type" else k: v for k, v in STRETCHED.items() if k != "rope_theta"}
    old = {**SIZES, "torch_dtype": "bfloat16", "rope_theta": 5e5, "rope_scaling": scaling}
    assert spec_of(old) == spec_of(new)
    assert spec_of(new).model.position.scaling.factor == 8.0
    assert spec_of(new) != spec_of(SIZES)


def fused(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All experts of a layer in one tensor, as `transformers` holds them."""
    kept = {name: t for name, t in tensors.items() if ".experts." not in name}
    for base in sorted({name.split(".experts.")[0] for name in tensors if ".experts." in name}):
        names = [f"{base}.experts.{e}" for e in range(len([n for n in tensors if n.startswith(base)])) if any(
            n.startswith(f"{base}.experts.{e}.") for n in tensors)]  # fmt: skip
        pairs = [torch.cat([tensors[f"{n}.gate_proj.weight"], tensors[f"{n}.up_proj.weight"]]) for n in names]
        kept[f"{base}.experts.gate_up_proj"] = torch.stack(pairs)
        kept[f"{base}.experts.down_proj"] = torch.stack([tensors[f"{n}.down_proj.weight"] for n in names])
    return kept


@pytest.mark.parametrize("name", ["qwen3_moe", "deepseek_v3"])
def test_experts_one_by_one_and_all_in_one_are_the_same_model(name: str, tmp_path: Path) -> None:
    reference(name).save_pretrained(tmp_path)
    apart = load_folder(tmp_path).state_dict()
    stored = load_file(tmp_path / "model.safetensors")
    assert any(".experts.0.gate_proj" in n for n in stored)
    save_file(fused(stored), tmp_path / "model.safetensors")
    together = load_folder(tmp_path).state_dict()
    assert apart.keys() == together.keys()
    assert all(torch.equal(apart[n], together[n]) for n in apart)


def test_more_experts_than_the_model_has_are_not_dropped(tmp_path: Path) -> None:
    reference("qwen3_moe").save_pretrained(tmp_path)
    stored = fused(load_file(tmp_path / "model.safetensors"))
    name = next(n for n in stored if n.endswith("experts.down_proj"))
    stored[name] = torch.cat([stored[name], stored[name][:1]])
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(ConvertError, match=r"experts.down_proj: holds 7 tensors, and the model has 6 experts"):
        load_folder(tmp_path)
