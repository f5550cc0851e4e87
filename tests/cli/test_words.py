"""Suggestions: the field's words lead to the kit's, wherever a name may stand."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import core
from registry.options import Group, slot_family
from registry.words import WORDS, kits, likely, suggest
from tests.cli.runner import Kit
from transformer_kit.cli.main import app
from transformer_kit.spec.explain import group_of, within

ROOT = Path(__file__).parents[2]
MODEL = ["vocab_size", "d_model", "max_seq_len", "dropout", "position", "norm", "layers", "head", "init"]
MIXER = ["n_heads", "n_kv_heads", "head_dim", "bias", "window"]
FAMILIES = [*core.families(), "models", "runs"]


@pytest.mark.parametrize(
    ("word", "choices", "meant"),
    [
        ("attention", FAMILIES, "mixer"),
        ("lr_scheduler", FAMILIES, "schedule"),
        ("context_len", MODEL, "max_seq_len"),
        ("contxt_len", MODEL, "max_seq_len"),  # a typing error in the field's word
        ("block_size", MODEL, "max_seq_len"),
        ("n_blocks", MODEL, "layers.count"),
        ("num_hidden_layers", MODEL, "layers.count"),
        ("hidden_size", MODEL, "d_model"),
        ("n_embd", MODEL, "d_model"),
        ("num_attention_heads", MIXER, "n_heads"),
        ("num_key_value_heads", MIXER, "n_kv_heads"),
        ("sliding_window", MIXER, "window"),
        ("positon", MODEL, "position"),
        ("mha", core.names("mixer"), "attention"),
        ("gqa", core.names("mixer"), "attention"),
        ("SwiGLU", core.names("ffn"), "gated"),
        ("swiglu", core.names("activation"), "silu"),
        ("RMSNorm", core.names("norm"), "rms_norm"),
        ("rmsnorm", core.names("norm"), "rms_norm"),
        ("learning_rate", ["lr", "betas", "eps"], "lr"),
        ("temp", core.names("sampler"), "temperature"),
    ],
)
def test_words_of_the_field_are_understood(word: str, choices: list[str], meant: str) -> None:
    assert likely(word, choices) == [meant]
    assert suggest(word, choices) == f"; did you mean '{meant}'?"


def test_without_a_near_name_few_choices_are_listed_and_many_are_not() -> None:
    assert suggest("zzz", ["a", "b"]) == "; choose from a, b"
    assert suggest("zzz", [f"x{i}" for i in range(99)]) == ""
    assert suggest("zzz", []) == ""


RENAMED = [
    ("mixer/mla", "plain_dim", "qk_nope_head_dim"),
    ("mixer/mla", "latents.q", "q_lora_rank"),
    ("mixer/mla", "temperature", "query_scaling"),
    ("scaling/yarn", "original", "original_max_seq_len"),
    ("scaling/yarn", "fast", "beta_fast"),
    ("scaling/yarn", "sharpen", "mscale"),
    ("scaling/yarn", "spared", "mscale_all_dim"),
    ("scaling/llama3", "low", "low_freq_factor"),
    ("scaling/longrope", "short", "short_factor"),
    ("router/sigmoid", "k", "top_k"),
    ("router/sigmoid", "normalise", "normalize_top_k"),
    ("router/sigmoid", "correction", "bias_correction"),
    ("router/sigmoid", "balance", "learning.load_balancing_loss"),
    ("router/sigmoid", "correction_rate", "learning.bias_update_rate"),
    ("router/sigmoid", "topk_group", "groups.top_k_groups"),
    ("mixer/attention", "result", "output_gate"),
    ("mixer/attention", "temperature", "query_scaling"),
    ("mixer/attention", "clip_qkv", "qkv.clip"),
    ("mixer/attention", "by_depth", "scores.scale_by_inverse_layer_idx"),
    ("ffn/moe", "weigh", "apply_weights_to"),
    ("position/rope", "fraction", "partial_rotary_factor"),
    ("position/rope", "width", "rotary_dim"),
    ("block/post_norm", "mixer_keep", "mixer_alpha"),
    ("block/sandwich", "gain", "layer_scalar"),
]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("recompute", "activation_checkpointing"),
        ("gradient_checkpointing", "activation_checkpointing"),
        ("step_in_backward", "optimizer_in_backward"),
        ("clip", "max_grad_norm"),
        ("accumulate", "gradient_accumulation"),
        ("documents", "document_mask"),
    ],
)
def test_an_older_word_of_training_leads_to_the_key(word: str, meant: str) -> None:
    from transformer_kit.spec.schema import Hardware, Train

    assert likely(word, [*Train.model_fields, *Hardware.model_fields]) == [meant]


@pytest.mark.parametrize(("part", "word", "meant"), RENAMED)
def test_an_older_word_leads_to_the_option(part: str, word: str, meant: str) -> None:
    options = core.get(*part.split("/")).Options
    assert (within(options, word) if "." in meant else likely(word, list(options.model_fields))) == [meant]


def fields_of(group: type[Group]) -> Iterator[str]:
    """Names of the fields of a group of options and of the groups inside it."""
    for name, field in group.model_fields.items():
        yield name
        inner = None if slot_family(field) else group_of(field.annotation)
        if inner is not None:
            yield from fields_of(inner)


def test_every_suggestion_exists() -> None:
    from transformer_kit.generate.decode import Settings
    from transformer_kit.spec.schema import Hardware, ModelSpec, RunSpec, Train

    commands = [c.callback.__name__ if c.name is None and c.callback else str(c.name) for c in app.registered_commands]
    parts = [name for family in core.families() for name in core.names(family)]
    fields = {f for c in (RunSpec, ModelSpec, Train, Hardware) for f in c.model_fields}
    for family in core.families():
        for name in core.names(family):
            fields |= set(fields_of(core.get(family, name).Options))
    known = {*FAMILIES, *Settings.__annotations__, *commands, *parts, *fields, "count", "block"}
    unknown = {ours for found in WORDS.values() for ours in found if ours.partition(".")[0] not in known}
    assert not unknown


def test_the_glossary_says_the_same() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8").split("## Words of a hand-written model")[1]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    named = [(re.findall(r"`([a-z_]+)`", there), re.findall(r"`([^`]+)`", here)) for there, here in rows]
    assert len(named) > 15
    for theirs, ours in named:
        for word in theirs if ours and ours[0] not in ("tokens", "segments") and "(" not in ours[0] else ():
            last = {re.split(r"[:.] ?", name)[-1] for name in ours}
            assert last & {k.rpartition(".")[2] for k in kits(word)}, f"{word} should lead to {ours}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("list attention", "no family 'attention'; did you mean 'mixer'?"),
        ("list swiglu", "did you mean activation/silu or ffn/gated?"),
        ("show gqa", "did you mean mixer/attention?"),
        ("sample x y", "Did you mean 'generate'?"),
        ("run x", "Did you mean 'train' or 'generate'?"),
        ("build gpt2", "did you mean 'gpt2-124m' or 'gpt2-xl'?"),
        ("build nothing-like-it", "there is no such file; `kit list models` names"),
        ("train quickstart --lr 1", "it is a value of the spec: --set optimizer.lr=VALUE"),
        ("build tutorial --n-layers 1", "--set model.layers.count=VALUE"),
        ("build tutorial --bach 1", "--batch"),
        ("explain tutorial hidden_size", "did you mean 'model.d_model'?"),
        ("explain tutorial model.layers.blok", "did you mean 'block'?"),
        ("check tutorial --set model.n_blocks=3", "did you mean 'layers.count'?"),
        ("check tutorial --set n_layers=3", "did you mean 'model.layers.count'?"),
        ("check tutorial --set model.layers.n_layers=3", "did you mean 'count'?"),
        ("check tutorial --set model.layers.block.ffn=swiglu", "no ffn 'swiglu'; did you mean 'gated'?"),
        ("check quickstart --set train.learning_rate=1", "did you mean 'lr', which belongs to optimizer 'adamw'?"),
    ],
)
def test_commands_suggest_in_one_short_line(kit: Kit, words: str, message: str) -> None:
    done = kit(*words.split())
    assert done.code == 2
    assert message in done.err
    assert max(map(len, done.err.splitlines())) < 200


def test_suggesting_imports_no_torch() -> None:
    code = "import sys, transformer_kit.cli.main, registry.words; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0
