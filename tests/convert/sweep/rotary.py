"""Rotary settings drawn at random: old spelling, new, both or none; every type; values that are null or not there."""

import random
from typing import Any

Config = dict[str, Any]
KINDS = ("full_attention", "sliding_attention")
TYPES = ("default", "linear", "dynamic", "yarn", "llama3", "longrope", "proportional")
THETAS = (10_000.0, 500.0, 1e6)


def rotary(rng: random.Random, config: Config, fields: Config) -> None:
    """Change the rotary settings of a config."""
    nested = _is_nested(config.get("rope_parameters")) or _is_nested(fields.get("rope_parameters"))
    spelling = rng.choice(["none", "null", "old", "old", "new", "new", "new", "both", "both"])
    turning = _turning(config, fields)
    if spelling != "none":
        config["rope_parameters"] = None
    if spelling == "none" or (spelling == "old" and rng.random() < 0.7):
        config.pop("rope_parameters", None)
    if spelling in ("new", "both"):
        config["rope_parameters"] = _new(rng, turning, config, nested and rng.random() < 0.8)
    if spelling in ("old", "both"):
        config["rope_scaling"] = rng.choice([_settings(rng, turning, config), _settings(rng, turning, config), None])
    if spelling == "null" and rng.random() < 0.6:
        config["rope_scaling"] = rng.choice([None, {}])
    _outside(rng, config, fields, spelling in ("old", "both", "none"))


def _new(rng: random.Random, turning: int, config: Config, many: bool) -> Config:
    """The new spelling, of each kind of layers where there are `many`."""
    made = {kind: _settings(rng, turning, config) for kind in KINDS} if many else _settings(rng, turning, config)
    if rng.random() < 0.6:
        for one in made.values() if many else [made]:
            one.setdefault("rope_theta", rng.choice(THETAS))
    return made


def _outside(rng: random.Random, config: Config, fields: Config, theta: bool) -> None:
    """Keys beside the mappings."""
    if theta or rng.random() < 0.15:
        config["rope_theta"] = rng.choice(THETAS)
    if rng.random() < 0.15:
        config["partial_rotary_factor"] = rng.choice([0.5, 0.25, 1.0])
    for key in ("global_rope_theta", "local_rope_theta", "rope_local_base_freq", "rotary_emb_base", "rotary_pct"):
        if key in fields and rng.random() < 0.2:
            config[key] = 0.5 if key == "rotary_pct" else rng.choice(THETAS)


def _is_nested(settings: Any) -> bool:
    return isinstance(settings, dict) and any(isinstance(v, dict) for v in settings.values())


def _turning(config: Config, fields: Config) -> int:
    """How many channels of a head turn, where all do."""
    if "qk_rope_head_dim" in fields:
        return int(config.get("qk_rope_head_dim", 64))
    if config.get("head_dim"):
        return int(config["head_dim"])
    if fields.get("head_dim") and "head_dim" not in config:
        return int(fields["head_dim"])
    return int(config.get("hidden_size", 48) // config.get("num_attention_heads", 4))


def _settings(rng: random.Random, turning: int, config: Config) -> Config:
    kind = rng.choice(TYPES)
    made: Config = {}
    if rng.random() < 0.25:
        made["partial_rotary_factor"] = rng.choice([0.5, 1.0, 0.25, 0.75])
    pairs = int(turning * made.get("partial_rotary_factor", config.get("partial_rotary_factor") or 1.0)) // 2
    made |= _of_type(rng, kind, max(pairs, 1))
    if rng.random() < 0.5:
        made["rope_theta"] = rng.choice(THETAS)
    if rng.random() < 0.08 and made:
        made[rng.choice(sorted(made))] = None
    if rng.random() < 0.08 and made:
        made.pop(rng.choice(sorted(made)))
    return {**made, **_type(rng, kind)} if rng.random() < 0.5 else {**_type(rng, kind), **made}


def _type(rng: random.Random, kind: str) -> Config:
    """The type under its new name, its old one, or both, in either order."""
    chance = rng.random()
    if chance < 0.55:
        return {"rope_type": kind}
    if chance < 0.75:
        return {"type": "su" if kind == "longrope" and rng.random() < 0.2 else kind}
    other = kind if chance < 0.85 else rng.choice(["default", "linear", "yarn", None])
    both = [("rope_type", kind), ("type", other)] if chance < 0.97 else [("rope_type", None), ("type", kind)]
    rng.shuffle(both)
    return dict(both)


def _of_type(rng: random.Random, kind: str, pairs: int) -> Config:
    """What a type takes, and some of what it may take."""
    original = {"original_max_position_embeddings": rng.choice([4, 6, 8, 16, 32])}
    factor = {"factor": rng.choice([2.0, 4.0, 1.0, 8, 32.0])}
    if kind in ("linear", "dynamic"):
        return factor
    if kind == "llama3":
        low = rng.choice([1.0, 0.5])
        return {**factor, **original, "low_freq_factor": low, "high_freq_factor": low * rng.choice([4.0, 2.0])}
    if kind == "yarn":
        return {**factor, **(original if rng.random() < 0.85 else {}), **_yarn(rng)}
    if kind == "longrope":
        lists = {w: [round(rng.uniform(1, 4), 2) for _ in range(pairs)] for w in ("short_factor", "long_factor")}
        return {**lists, **(original if rng.random() < 0.8 else {}), **_maybe(rng, LONG, 0.25)}
    if kind == "proportional":
        return _maybe(rng, {"factor": (2.0, 1.0)}, 0.5)
    return {}


LONG: dict[str, tuple[Any, ...]] = {"factor": (4.0, 2), "attention_factor": (1.2, 2)}
YARN: dict[str, tuple[Any, ...]] = {
    "attention_factor": (1.0, 1.3),
    "beta_fast": (32.0, 4, 16.0),
    "beta_slow": (1.0, 0.5, 2),
    "mscale": (1.0, 0.707, 0),
    "mscale_all_dim": (1.0, 0.5, 0),
    "truncate": (True, False),
}


def _yarn(rng: random.Random) -> Config:
    return _maybe(rng, YARN, 0.3)


def _maybe(rng: random.Random, choices: dict[str, tuple[Any, ...]], chance: float) -> Config:
    return {key: rng.choice(values) for key, values in choices.items() if rng.random() < chance}
