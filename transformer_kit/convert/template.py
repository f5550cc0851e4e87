"""Templates: values with variables, filled from a config on the way in, solved for it on the way out.

$key                                   the value of a key; an entry whose key is null is left out
$key?                                  likewise; going out, a case that has it may be meant though it is not given
{$: key, map: {silu: silu, relu: relu}}     by a table, which must be one to one to go out
{$: key, fn: rsqrt}                    by a function that has an inverse
{$: key, times: other, power: -1}      times the value of another key, to a power (1 when not given); then `fn`
{$: key, unless: other}                left out where another key, or what another variable gives, has the same value
$each                                  inside `each`: the layer's own value in the list
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transformer_kit.convert.arguments import checked, is_a
from transformer_kit.convert.errors import ConvertError
from transformer_kit.spec.errors import shown

FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "rsqrt": (lambda x: x**-0.5, lambda y: y**-2.0),
    "sqrt": (math.sqrt, lambda y: y * y),
    "inverse": (lambda x: 1 / x, lambda y: 1 / y),
    "double": (lambda x: 2 * x, lambda y: y / 2),
    "half": (lambda x: x // 2, lambda y: 2 * y),
}


class Absent(Exception):
    """A variable's key is null or missing, so that the entry that uses it is left out."""


def is_variable(value: Any) -> bool:
    """Whether a template's value stands for a key."""
    return (isinstance(value, str) and value.startswith("$")) or (isinstance(value, Mapping) and "$" in value)


def key_of(value: Any) -> str:
    """The key that a variable stands for."""
    return str(value["$"] if isinstance(value, Mapping) else value[1:]).removesuffix("?")


def filled(template: Any, config: Mapping[str, Any], used: set[str]) -> Any:
    """The template with its variables' values; `used` collects their keys. Raises ConvertError for a wrong value."""
    if is_variable(template):
        return _value(template, config, used)
    if isinstance(template, Mapping):
        out = {}
        for key, value in template.items():
            try:
                out[key] = filled(value, config, used)
            except Absent:
                continue
        return out
    if isinstance(template, list):
        return [filled(v, config, used) for v in template]
    return template


def _value(variable: Any, config: Mapping[str, Any], used: set[str]) -> Any:
    key = key_of(variable)
    used.add(key)
    value = config.get(key)
    if value is None:
        raise Absent
    if isinstance(variable, str):
        return value
    if "map" in variable:
        return filled(_mapped(variable["map"], key, value), config, used)
    if "unless" in variable and value == _other(variable["unless"], value, config, used):
        raise Absent
    if "times" in variable:
        used.add(variable["times"])
        if config.get(variable["times"]) is None:
            raise Absent
    if "times" not in variable and "fn" not in variable:
        return value
    try:
        result = _computed(variable, value, config)
    except (ValueError, ArithmeticError):
        result = None
    if not is_a("number", result):
        given = [f"{k}: {shown(config.get(k))}" for k in keys_of(variable)]
        raise ConvertError("config.json", [f"{', '.join(given)}: must be a number that can be computed with"])
    return result


def _computed(variable: Any, value: Any, config: Mapping[str, Any]) -> Any:
    """The number, or what is none: a complex one, as a root of what is below zero."""
    number = checked("number", value, key_of(variable))
    if "times" in variable:
        other = checked("number", config[variable["times"]], variable["times"])
        number = whole(number * other ** checked("power", variable.get("power", 1), "power"))
    return FUNCTIONS[variable["fn"]][0](number) if "fn" in variable else number


def _other(variable: Any, value: Any, config: Mapping[str, Any], used: set[str]) -> Any:
    """What `value` is compared with: itself where that is absent, nothing where it cannot be computed."""
    try:
        return filled({"": _as_variable(variable)}, config, used).get("", value)
    except ConvertError:
        return None


def _as_variable(key: Any) -> Any:
    return key if isinstance(key, Mapping) else f"${key}"


def _mapped(table: Mapping[str, Any], key: str, value: Any) -> Any:
    word = spelled(value)
    if word not in table:
        raise ConvertError("config.json", [f"{key}: {shown(value)} is not known; known are {', '.join(table)}"])
    return table[word]


def spelled(value: Any) -> str:
    """A config's value as declarations spell it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def unspelled(word: str) -> Any:
    """A declaration's spelling as a config's value."""
    words = {"null": None, "true": True, "false": False}
    if word in words:
        return words[word]
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    return float(word) if re.fullmatch(r"-?\d+\.\d+", word) else word


def solved(template: Any, value: Any, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Keys of the config that make `template` say `value`; what cannot be solved is left out.

    `known` holds keys that are solved already.
    """
    if is_variable(template):
        found = _inverse(template, value, known or {})
        return {} if found is None else {key_of(template): found}
    out: dict[str, Any] = {}
    if isinstance(template, Mapping) and isinstance(value, Mapping):
        if template.get("type", value.get("type")) != value.get("type"):
            return {}  # another part, whose options mean other things
        for key, inner in template.items():
            if key in value:
                out |= solved(inner, value[key], known)
    return out


def _inverse(variable: Any, value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(variable, str) or value is None or "unless" in variable:
        return value
    if "map" in variable:
        name = value.get("type") if isinstance(value, Mapping) else value
        back = {
            ours if not isinstance(ours, Mapping) else ours["type"]: theirs
            for theirs, ours in reversed(variable["map"].items())
        }
        return unspelled(back[name]) if name in back else None
    number = FUNCTIONS[variable["fn"]][1](value) if "fn" in variable else value
    if "times" in variable:
        other = known.get(variable["times"])
        if not other:
            return None
        number = number / other ** variable.get("power", 1)
    return whole(number)


def whole(number: float) -> float:
    """The whole number that is meant, if one is."""
    return round(number) if abs(number - round(number)) < 1e-6 * abs(number) else number


def holds(template: Any, value: Any) -> bool:
    """Whether everything the template says outright is so in `value`; variables may be anything that is given."""
    if is_variable(template):
        return value is not None or (template.endswith("?") if isinstance(template, str) else "unless" in template)
    if isinstance(template, Mapping):
        if isinstance(value, Mapping):
            return all(holds(inner, value.get(key)) for key, inner in template.items())
        return False
    if isinstance(value, Mapping) and isinstance(template, str):
        return value.get("type") == template
    return same(template, value)


def unlike(template: Any, value: Any, where: str) -> list[tuple[str, str]]:
    """What the template says outright and is not so in `value`: places, and what is there."""
    if is_variable(template):
        return []
    if isinstance(template, Mapping) and isinstance(value, Mapping):
        keys = sorted(template, key=lambda key: key != "type")  # another part has other options
        found = [unlike(template[key], value.get(key), f"{where}.{key}") for key in keys]
        return found[0] if "type" in template and found[0] else [one for some in found for one in some]
    if holds(template, value):
        return []
    ours, theirs = (v.get("type", "given") if isinstance(v, Mapping) else v for v in (value, template))
    return [(where, f"{where} is {ours!r}, not {theirs!r}")]


def same(a: Any, b: Any) -> bool:
    """Equal, numbers to rounding."""
    if isinstance(a, float) and isinstance(b, (int, float)) and not isinstance(b, bool):
        return math.isclose(a, b, rel_tol=1e-9)
    return bool(a == b)


def size(template: Any) -> int:
    """How much a template says: of several that hold, the one that says most is meant."""
    if is_variable(template) or not isinstance(template, Mapping):
        return 1
    return 1 + sum(size(v) for v in template.values())


def keys_of(template: Any) -> Iterator[str]:
    """Every key that a template reads: those of `leaves`, and what these are multiplied with."""
    if isinstance(template, Mapping) and "$" in template:
        yield key_of(template)
        for word in ("times", "unless"):
            yield from keys_of(_as_variable(template[word])) if word in template else ()
    elif isinstance(template, Mapping):
        for inner in template.values():
            yield from keys_of(inner)
    elif is_variable(template):
        yield key_of(template)


def leaves(template: Any) -> Iterator[str]:
    """Keys of all variables."""
    if is_variable(template):
        yield key_of(template)
    elif isinstance(template, Mapping):
        for inner in template.values():
            yield from leaves(inner)
