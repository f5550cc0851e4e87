"""Configurations drawn at random: a tiny published one, with other values, other spellings, keys left out or null.

    draw(seed) -> Case: a config.json as a user might have it, of one of the declared families

What is drawn depends on the seed alone.
"""

import json
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.convert.references import configurations
from tests.convert.sweep.rotary import rotary
from transformer_kit.convert.declaration import declarations
from transformer_kit.convert.page import ALWAYS_INERT

Config = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One drawn configuration."""

    seed: int
    name: str
    """Of the tiny configuration that it started from."""
    config: Config
    """What its config.json holds."""


@cache
def bases() -> tuple[str, ...]:
    """Tiny configurations of declared families."""
    known = declarations()
    decoders = [name for name, entry in configurations().items() if entry["kind"] == "decoder"]
    return tuple(sorted(name for name in decoders if config_class(name).model_type in known))


def config_class(name: str) -> Any:
    """The class in `transformers` of a tiny configuration."""
    import transformers

    return getattr(transformers, configurations()[name]["config_class"])


@cache
def defaults(name: str) -> Config:
    """What the class says when nothing is said."""
    found: Config = config_class(name)().to_dict()
    return found


def nullable(name: str, key: str) -> bool:
    """Whether the class lets a key be null."""
    field = config_class(name).__dataclass_fields__.get(key)
    return field is None or "None" in str(field.type)


def goes_on(name: str) -> bool:
    """Whether positions do not end at the longest sequence that the config names."""
    return "rope_parameters" in defaults(name)


def draw(seed: int) -> Case:
    """The configuration of a seed."""
    rng = random.Random(seed)
    name = rng.choice(bases())
    config: Config = json.loads(json.dumps(configurations()[name]["config"]))
    fields = defaults(name)
    nulls = {key for key in {**fields, **config} if nullable(name, key)}
    for change in (_sizes, _windows, _flags, _words, _numbers, _left_out):
        if rng.random() < 0.7:
            change(rng, config, fields, nulls)
    config["max_position_embeddings"] = rng.choice([64, 24]) if goes_on(name) else 64
    if "rope_parameters" in fields and rng.random() < 0.8:
        rotary(rng, config, fields)
    keys = [*config, "model_type"]
    config["model_type"] = config_class(name).model_type
    rng.shuffle(keys)
    limit = {} if "max_position_embeddings" in fields else {"max_position_embeddings"}
    return Case(seed, name, {key: config[key] for key in keys if key not in limit})


def _sizes(rng: random.Random, config: Config, fields: Config, nulls: set[str]) -> None:
    """Odd sizes, and heads that are not a part of the width."""
    heads = next((k for k in ("num_attention_heads", "n_head", "n_heads", "attention_heads") if k in config), None)
    width = next((k for k in ("hidden_size", "n_embd", "d_model") if k in config), None)
    if heads is None or width is None:
        return
    number, head = rng.choice([1, 2, 3, 4, 5, 6]), rng.choice([4, 6, 8, 10, 16])
    config[heads] = number
    config[width] = number * head
    if "num_attention_heads_per_layer" in config:
        config["num_attention_heads_per_layer"] = [number] * len(config["num_attention_heads_per_layer"])
    if "num_key_value_heads" in fields:
        divisors = [n for n in range(1, number + 1) if number % n == 0]
        config["num_key_value_heads"] = rng.choice([*divisors, *([None] if "num_key_value_heads" in nulls else [])])
    if "head_dim" in fields and "kv_lora_rank" not in fields:
        config["head_dim"] = rng.choice([*([None] if "head_dim" in nulls else []), head, 2 * head, 6, 12])
    _nested_sizes(config, width)
    if "intermediate_size" in config:
        config["intermediate_size"] = rng.choice([17, 32, 40, 57])


def _nested_sizes(config: Config, width: str) -> None:
    if isinstance(config.get("ffn_config"), dict) and "hidden_size" in config["ffn_config"]:
        config["ffn_config"] = {**config["ffn_config"], "hidden_size": config[width]}


def _windows(rng: random.Random, config: Config, fields: Config, nulls: set[str]) -> None:
    for key in ("sliding_window", "local_attention", "window_size", "attention_chunk_size"):
        if key in fields:
            widths: list[Any] = [1, 3, 4, 5, 9, 100] if key == "sliding_window" else [2, 4, 6, 10]
            config[key] = rng.choice([*widths, *([None] if key in nulls and rng.random() < 0.5 else [])])
    if "max_window_layers" in fields:
        config["max_window_layers"] = rng.choice([0, 1, 2, 28])
    if "layer_types" in fields:
        kinds = sorted(set(config.get("layer_types") or ["full_attention", "sliding_attention"]))
        layers = config.get("num_hidden_layers", 2)
        drawn = [rng.choice(kinds) for _ in range(layers)]
        config["layer_types"] = rng.choice([None, drawn, drawn])
        if rng.random() < 0.2:
            del config["layer_types"]


def _flags(rng: random.Random, config: Config, fields: Config, nulls: set[str]) -> None:
    for key, value in fields.items():
        if isinstance(value, bool) and key not in ALWAYS_INERT and rng.random() < 0.25:
            config[key] = not config.get(key, value)


ACTIVATIONS = ("silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "relu2", "quick_gelu")
CHOICES: dict[str, tuple[Any, ...]] = {
    "topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
    "gating": (True, False, "per-head", "per-element"),
    "expert_selection_fn": ("softmax", "sigmoid"),
    "shared_expert_combination_strategy": ("average", "sum"),
    "attention_types": ([[["global", "local"], 1]], [[["global"], 1], [["local"], 1]]),
    "position_embedding_type": ("absolute", "rope", "rope_gptj"),
}


def _words(rng: random.Random, config: Config, fields: Config, nulls: set[str]) -> None:
    for key in fields:
        if (
            key in ("hidden_act", "hidden_activation", "activation_function", "activation", "afn")
            and rng.random() < 0.5
        ):
            config[key] = rng.choice(ACTIVATIONS)
        elif key in CHOICES and rng.random() < 0.4:
            config[key] = rng.choice(CHOICES[key])


def _numbers(rng: random.Random, config: Config, fields: Config, nulls: set[str]) -> None:
    """Other numbers where the class has some; counts stay small."""
    for key, value in {**fields, **config}.items():
        if key in ALWAYS_INERT or key in SIZES or "drop" in key or rng.random() > 0.2:
            continue
        if isinstance(value, float):
            config[key] = value * rng.choice([0.5, 2.0, 1.0]) + rng.choice([0.0, 1e-3])
        elif type(value) is int and 0 <= value <= 8:
            config[key] = rng.choice([0, 1, 2, 3, 4])


SIZES = {
    *("vocab_size", "hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    *("num_attention_heads", "n_head", "n_heads", "attention_heads", "num_key_value_heads", "head_dim", "v_head_dim"),
    *("intermediate_size", "qk_rope_head_dim", "qk_nope_head_dim", "max_position_embeddings", "num_local_experts"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "num_experts", "n_routed_experts", "moe_num_experts"),
}
"""Numbers that are drawn together, or not at all."""


def _left_out(rng: random.Random, config: Config, fields: Config, nulls: set[str]) -> None:
    """Keys that are absent, or null; never one whose default is large."""
    for key in list(config):
        default = fields.get(key)
        large = type(default) is int and default > (128 if key in ("head_dim", "v_head_dim") else 32)
        chance = rng.random()
        if chance < 0.06 and key in fields and not large:
            del config[key]
        elif chance < 0.12 and key in nulls and key not in SIZES:
            config[key] = None
