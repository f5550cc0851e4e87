"""The two spellings of rotary settings in a config.json, made one: flat keys `rope.type`, `rope.theta`, `rope.factor`.

    new: rope_parameters: {rope_type: yarn, rope_theta: 1e6, factor: 4}, or one such mapping for each kind of layer
    old: rope_theta: 1e6, rope_scaling: {type: yarn, factor: 4}, partial_rotary_factor: 0.5

If both exist, they rank as in `transformers` 5. A `rope_scaling` that is not empty replaces `rope_parameters`, and
`rope_type` ranks before `type`. theta and partial_rotary_factor outside the mapping apply if the mapping has none.
With kinds of layers the keys are `rope.sliding_attention.theta`; those of `full_attention` are the model's own,
`rope.theta`. The declaration says how a class reads them: see `schema.Rotary`.
"""

from collections.abc import Mapping
from typing import Any

from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.schema import Rotary

NEW, OLD = "rope_parameters", "rope_scaling"
OUTSIDE = {"rope_theta": "theta", "partial_rotary_factor": "partial_rotary_factor"}
OLD_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
MAIN, LOCAL = "full_attention", "sliding_attention"
OPEN = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "alpha", "llama_4_scaling_beta")
"""Keys for which null means absent; for longrope `factor` is another."""


def flat(config: Mapping[str, Any], rotary: Rotary, known: frozenset[str]) -> dict[str, Any]:
    """The config with flat keys for rotary settings, and everything else unchanged. Raises ConvertError.

    Keys outside the mappings stay if they are `known`, or if they differ from the mappings.
    """
    settings = {key: value for key, (value, _) in _read(config, rotary).items()}
    out = {k: v for k, v in config.items() if k not in (NEW, OLD)}
    for key, short in OUTSIDE.items():
        if key in out and key not in known and out[key] in (None, settings.get(f"rope.{short}")):
            out.pop(key)
    return out | settings


def spelled(config: Mapping[str, Any], rotary: Rotary) -> dict[str, str]:
    """The config's spelling of each flat key: `rope.factor` is its `rope_scaling.factor`."""
    return {key: where for key, (_, where) in _read(config, rotary).items()}


def outside(key: str) -> str:
    """The spelling outside the mappings of a flat key."""
    *_, last = key.split(".")
    return _LONG.get(last, last)


def _read(config: Mapping[str, Any], rotary: Rotary) -> dict[str, tuple[Any, str]]:
    """Flat keys, each with its value and its location in the config."""
    new, old = _mapping(config, NEW), _mapping(config, OLD)
    if old and rotary.new_alone:
        raise _wrong(f"{OLD}: the family's class ignores it; write {NEW}")
    given = rotary.absent if new is None else new
    if rotary.kinds:
        return _of_kinds(given, old or {}, rotary)
    if kinds := [key for key, value in (old or given).items() if isinstance(value, dict)]:
        raise _wrong(f"{OLD if old else NEW}.{kinds[0]}: the family has one setting for all layers")
    return _settings(old or given, OLD if old else NEW, "rope")


def _of_kinds(given: Mapping[str, Any], old: Mapping[str, Any], rotary: Rotary) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for key in given:
        if key not in rotary.kinds:
            raise _wrong(f"{NEW}.{key}: the family has settings for each kind of layers, {', '.join(rotary.kinds)}")
    if old and not rotary.laid_on and _main(old) != _main(given.get(MAIN) or {}):
        raise _wrong(f"{OLD}: the family's class would apply it to all kinds of layers in {NEW}; remove it")
    for kind in rotary.kinds:
        own = given.get(kind) or {}
        if not isinstance(own, dict):
            raise _wrong(f"{NEW}.{kind}: must be a mapping, got {own!r:.60}")
        laid = old if kind in rotary.laid_on else {}
        if "type" in laid and "rope_type" not in laid and laid["type"] != own.get("rope_type", "default"):
            raise _wrong(f"{OLD}.type: {laid['type']!r:.60} is ignored by the family's class; write rope_type")
        prefix = "rope" if kind == MAIN else f"rope.{kind}"
        _settings(laid, OLD, prefix)  # reports the location of a null
        read = _settings({**own, **laid}, f"{NEW}.{kind}", prefix)
        if read.get(f"{prefix}.truncate", (True, ""))[0] is not True:
            place = OLD if "truncate" in laid else f"{NEW}.{kind}"
            raise _wrong(f"{place}.truncate: transformers ignores it within a kind of layers; remove it")
        found |= {k: (v, f"{OLD}.{where.rsplit('.', 1)[-1]}" if where.rsplit(".", 1)[-1] in laid else where)
                  for k, (v, where) in read.items()}  # fmt: skip
    return found


def _main(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, (value, _) in _settings(settings, OLD, "rope").items() if key != "rope.theta"}


def _mapping(config: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    value = config.get(key)
    if value is not None and not isinstance(value, dict):
        raise _wrong(f"{key}: must be a mapping, got {value!r:.60}")
    return value


def _wrong(problem: str) -> ConvertError:
    return ConvertError("config.json", [problem])


def _settings(given: Mapping[str, Any], where: str, prefix: str) -> dict[str, tuple[Any, str]]:
    """The settings in one mapping."""
    word = "rope_type" if "rope_type" in given else "type"
    kind = given.get(word, "default")
    taken = {k: v for k, v in given.items() if k not in ("rope_type", "type")}
    optional = (*OPEN, *(["factor"] if kind == "longrope" else []))
    for key, value in {word: kind, **taken}.items():
        if value is None and key not in optional:
            raise _wrong(f"{where}.{key}: must have a value, got null; give one or remove the key")
    named = {key: (_SHORT.get(key, key), value) for key, value in taken.items() if value is not None}
    if kind == "proportional" and "partial_rotary_factor" in named:  # share of the rotated pairs, not of the channels
        named["partial_rotary_factor"] = ("share", taken["partial_rotary_factor"])
    if kind == "yarn" and taken.get("mscale") and taken.get("mscale_all_dim"):  # either alone has no effect on angles
        named |= {key: (f"yarn_{key}", taken[key]) for key in ("mscale", "mscale_all_dim")}
    elif kind == "default" or not taken.get("mscale_all_dim"):
        named.pop("mscale_all_dim", None)
    if kind != "dynamic":
        named.pop("alpha", None)
    found = {f"{prefix}.{short}": (value, f"{where}.{key}") for key, (short, value) in named.items()}
    return {**found, f"{prefix}.type": (kind, f"{where}.{word}")} if word in given else found


_SHORT = {"rope_theta": "theta"}
_LONG = {
    "type": "rope_type", "theta": "rope_theta", "share": "partial_rotary_factor", "yarn_mscale": "mscale",
    "yarn_mscale_all_dim": "mscale_all_dim",
}  # fmt: skip


def nested(config: Mapping[str, Any], rotary: Rotary, known: frozenset[str]) -> dict[str, Any]:
    """The config in both spellings, so that old and new readers understand it.

    Only `known` keys are written outside the mappings. With `rope_scaling: null` the old spelling of the scaling is
    omitted.
    """
    out = {k: v for k, v in config.items() if not k.startswith("rope.") and k != OLD}
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
    parameters |= {"rope_type": "dynamic", "factor": 1.0} if "alpha" in parameters else {}
    kinds = {k: v for k, v in parameters.items() if isinstance(v, dict)}
    main = {k: v for k, v in parameters.items() if k not in kinds}
    scaling = set() if rotary.new_alone else {OLD}
    old = {k: v for k, v in _old(main).items() if k not in config and k in known | scaling}
    if not rotary.kinds:
        return {**out, NEW: main, **old}
    old.pop("partial_rotary_factor", None)  # readers would apply it to all kinds
    if "rope_local_base_freq" in known and "rope_theta" in kinds.get(LOCAL, {}):
        old["rope_local_base_freq"] = kinds[LOCAL]["rope_theta"]
    return {**out, NEW: {MAIN: main, **kinds}, **(old if rotary.laid_on == [MAIN] else {})}


def _old(parameters: dict[str, Any]) -> dict[str, Any]:
    """The old spelling, if there was one. The scaling includes theta, for readers that use the scaling alone."""
    out: dict[str, Any] = {k: parameters[k] for k in OUTSIDE if k in parameters}
    kind = parameters.get("rope_type", "default")
    if kind not in OLD_TYPES:
        return {}
    return out if kind == "default" else {**out, OLD: parameters}
