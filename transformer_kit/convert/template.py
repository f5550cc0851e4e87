"""Templates: values with variables. Import fills them from a config; export solves them for the config's keys.

$key                                   the value of a key; an entry whose key is null is omitted
$key?                                  likewise; in export, a case with it may match where the value is absent
{$: key, map: {silu: silu, relu: relu}}     by a table, which must be one-to-one for export
{$: key, fn: rsqrt}                    by an invertible function
{$: key, times: other, power: -1}      times the value of another key, to a power (1 when not given); then `fn`
{$: key, unless: other}                omitted where another key, or another variable, has the same value
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
    """A variable's key is null or missing, so its entry is omitted."""


def is_variable(value: Any) -> bool:
    """Whether a template's value is a variable."""
    return (isinstance(value, str) and value.startswith("$")) or (isinstance(value, Mapping) and "$" in value)


def key_of(value: Any) -> str:
    """The key of a variable."""
    return str(value["$"] if isinstance(value, Mapping) else value[1:]).removesuffix("?")


def filled(template: Any, config: Mapping[str, Any], used: set[str]) -> Any:
    """The template with the values of its variables; adds their keys to `used`. Raises ConvertError for a bad value."""
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
        raise ConvertError("config.json", [f"{', '.join(given)}: must be a finite number"])
    return result


def _computed(variable: Any, value: Any, config: Mapping[str, Any]) -> Any:
    """The computed number. The result may be complex, such as a root of a negative number."""
    number = checked("number", value, key_of(variable))
    if "times" in variable:
        other = checked("number", config[variable["times"]], variable["times"])
        number = whole(number * other ** checked("power", variable.get("power", 1), "power"))
    return FUNCTIONS[variable["fn"]][0](number) if "fn" in variable else number


def _other(variable: Any, value: Any, config: Mapping[str, Any], used: set[str]) -> Any:
    """The value to compare `value` with: itself if absent, None if it cannot be computed."""
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
    """A config's value in a declaration's spelling."""
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
    """Config keys for which `template` gives `value`; unsolvable ones are omitted.

    `known` contains the keys solved so far.
    """
    if is_variable(template):
        found = _inverse(template, value, known or {})
        return {} if found is None else {key_of(template): found}
    out: dict[str, Any] = {}
    if isinstance(template, Mapping) and isinstance(value, Mapping):
        if template.get("type", value.get("type")) != value.get("type"):
            return {}  # another part, with other options
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
    """The nearest integer if the number is one up to rounding, else the number."""
    return round(number) if abs(number - round(number)) < 1e-6 * abs(number) else number


def holds(template: Any, value: Any) -> bool:
    """Whether the template's constants match `value`. A variable matches any value that is given."""
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
    """Mismatches between the template's constants and `value`: (location, message)."""
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
    """Whether two values are equal, floats up to rounding."""
    if isinstance(a, float) and isinstance(b, (int, float)) and not isinstance(b, bool):
        return math.isclose(a, b, rel_tol=1e-9)
    return bool(a == b)


def size(template: Any) -> int:
    """Number of entries in a template. Among matching templates, the largest is the most specific."""
    if is_variable(template) or not isinstance(template, Mapping):
        return 1
    return 1 + sum(size(v) for v in template.values())


def keys_of(template: Any) -> Iterator[str]:
    """Every key that a template reads: the keys of `leaves`, and their factors."""
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
