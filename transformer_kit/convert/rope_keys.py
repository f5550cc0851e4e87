"""The two spellings of rotary settings in a config.json, made one: flat keys `rope.type`, `rope.theta`, `rope.factor`.

    new: rope_parameters: {rope_type: yarn, rope_theta: 1e6, factor: 4}, or one such mapping for each kind of layer
    old: rope_theta: 1e6, rope_scaling: {type: yarn, factor: 4}, partial_rotary_factor: 0.5

With kinds of layers the keys read `rope.sliding_attention.theta`; those of `full_attention` are the model's own,
`rope.theta`.
"""

from typing import Any

from transformer_kit.convert.errors import ConvertError

OLD = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "rope_local_base_freq")
OLD_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
MAIN, LOCAL = "full_attention", "sliding_attention"


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """The config with rotary settings under flat keys; everything else as it was. Raises ConvertError."""
    out = {k: v for k, v in config.items() if k not in OLD}
    out |= {"rope.theta": config["rope_theta"]} if "rope_theta" in config else {}
    out |= {"rope.fraction": config["partial_rotary_factor"]} if "partial_rotary_factor" in config else {}
    out |= {f"rope.{LOCAL}.theta": config["rope_local_base_freq"]} if "rope_local_base_freq" in config else {}
    for source in ("rope_scaling", "rope_parameters"):
        settings = config.get(source) or {}
        if not isinstance(settings, dict):
            raise ConvertError("config.json", [f"{source}: must be a mapping, got {settings!r:.60}"])
        out |= _settings(settings, "rope")
    return out


def _settings(given: dict[str, Any], prefix: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in given.items():
        if isinstance(value, dict):
            out |= _settings(value, prefix if key == MAIN else f"{prefix}.{key}")
        elif not (value is None and isinstance(given, dict)):
            out[f"{prefix}.{_SHORT.get(key, key)}"] = value
    return out


_SHORT = {"rope_type": "type", "type": "type", "rope_theta": "theta", "partial_rotary_factor": "fraction"}
_LONG = {"type": "rope_type", "theta": "rope_theta", "fraction": "partial_rotary_factor"}


def nested(config: dict[str, Any]) -> dict[str, Any]:
    """A config with flat keys as both spellings write it, so that old and new readers understand it.

    With `rope_scaling: null` the old spelling of the scaling is not written.
    """
    out = {k: v for k, v in config.items() if not k.startswith("rope.") and k != "rope_scaling"}
    parameters: dict[str, Any] = {}
    for key, value in config.items():
        if key.startswith("rope.") and value is not None:
            *path, last = key.split(".")[1:]
            place = parameters
            for kind in path:
                place = place.setdefault(kind, {})
            place[_LONG.get(last, last)] = value
    if not parameters:
        return out
    kinds = {k: v for k, v in parameters.items() if isinstance(v, dict)}
    main = {k: v for k, v in parameters.items() if k not in kinds}
    old = {k: v for k, v in _old(main).items() if k not in config}
    if not kinds:
        return {**out, "rope_parameters": main, **old}
    old.pop("partial_rotary_factor", None)  # which readers would give to all kinds
    local = {"rope_local_base_freq": kinds[LOCAL]["rope_theta"]} if "rope_theta" in kinds.get(LOCAL, {}) else {}
    return {**out, "rope_parameters": {MAIN: main, **kinds}, **(old | local if old else {})}


def _old(parameters: dict[str, Any]) -> dict[str, Any]:
    """The old spelling, where there was one."""
    out: dict[str, Any] = {k: parameters[k] for k in ("rope_theta", "partial_rotary_factor") if k in parameters}
    scaling = {k: v for k, v in parameters.items() if k not in out}
    kind = scaling.get("rope_type", "default")
    if kind not in OLD_TYPES:
        return {}
    return out if kind == "default" else {**out, "rope_scaling": scaling}
