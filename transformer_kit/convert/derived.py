"""Per-layer lists that a config gives by a rule (the first k, every n-th, a set of indices), and the inverse.

    {first: $k, then: a, else: b}                 layers 0..k-1 are a
    {every: $n, offset: $o, then: a, else: b}     layer i is a if i % n == o (default n - 1)
    {at: $indices, then: a, else: b}              the listed layers are a
    {from: $k, to: $l, then: a, else: b}          layers k..l are a, where l = -1 is the last one
    {runs: $runs}                                 [[[a, b], 2], ...]: a list of words, repeated n times
    {ones: $flags, then: a, else: b}              a list of 0 and 1, one for each layer
    {all: a}                                      every layer

With `given: $key` a rule applies only if that key is true; else every layer is `then`. A rule under `or` applies if
the key of its parent rule is null. With `private: true` the list exists only in the declaration. It is neither read
from a config nor written to one, and export refuses a model whose layers the rule cannot describe.
"""

from collections.abc import Mapping
from typing import Any

from transformer_kit.convert.arguments import checked
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.template import is_variable, key_of

ARGUMENTS = {
    "first": "whole number",
    "every": "whole number",
    "offset": "whole number",
    "at": "indices",
    "from": "whole number",
    "to": "whole number",
    "ones": "flags",
    "runs": "runs",
    "given": "flag",
}
"""Kind of each argument's value."""


def listed(rule: Mapping[str, Any], config: Mapping[str, Any], layers: int, used: set[str]) -> list[str] | None:
    """One word per layer; None when the rule's key is null."""
    if "all" in rule:
        return [_read(rule["all"], config, used)] * layers
    kind = _kind(rule)
    if not _argument("given", rule, config, used, default=True):
        return [rule["then"]] * layers
    given = _argument(kind, rule, config, used)
    if given is None and "or" in rule:
        return listed(rule["or"], config, layers, used)
    if given is None and "else" in rule:
        return [rule["else"]] * layers
    if kind == "runs":
        given = checked("runs", given, _spelled(rule[kind]))
        return [word for words, times in given for word in words * times]
    if kind == "ones" and len(given) < layers:
        problem = f"{_spelled(rule[kind])}: must have {layers} items, one for each layer, got {len(given)}"
        raise ConvertError("config.json", [problem])
    last = _argument("to", rule, config, used)
    offset = _argument("offset", rule, config, used)
    chosen = {
        "first": lambda i: i < given,
        "every": lambda i: given > 0 and i % given == (given - 1 if offset is None else offset),
        "at": lambda i: i in given,
        "from": lambda i: given <= i <= (layers - 1 if last in (None, -1) else last),
        "ones": lambda i: bool(given[i]),
    }[kind]
    return [rule["then"] if chosen(i) else rule["else"] for i in range(layers)]


def solution(rule: Mapping[str, Any], words: list[str]) -> dict[str, Any]:
    """Config keys for which the rule gives `words`; empty if there are none."""
    if "all" in rule:
        return {}
    if "given" in rule:
        plain = all(word == rule["then"] for word in words)
        return {key_of(rule["given"]): not plain} | solution({k: v for k, v in rule.items() if k != "given"}, words)
    kind = _kind(rule)
    if not is_variable(rule[kind]):
        return {}
    key = key_of(rule[kind])
    if kind == "runs":
        return {key: [[words, 1]]}
    chosen = [i for i, word in enumerate(words) if word == rule["then"]]
    if kind == "at":
        return {key: chosen}
    if kind == "from":
        return _range(rule, key, chosen)
    if kind == "ones":
        return {key: [int(w == rule["then"]) for w in words]}
    if kind == "first":
        return {key: len(chosen)} if chosen == list(range(len(chosen))) else {}
    return _period(rule, key, words)


def _period(rule: Mapping[str, Any], key: str, words: list[str]) -> dict[str, Any]:
    variable = is_variable(rule.get("offset"))
    first = words.index(rule["then"]) if rule["then"] in words else 0
    for n in range(first + 1 if variable else 1, len(words) + 2):
        offset = first if variable else rule.get("offset", n - 1)
        if words == [rule["then"] if i % n == offset else rule["else"] for i in range(len(words))]:
            return {key: n} | ({key_of(rule["offset"]): offset} if variable else {})
    return {}


def _range(rule: Mapping[str, Any], key: str, chosen: list[int]) -> dict[str, Any]:
    if not chosen or chosen != list(range(chosen[0], chosen[-1] + 1)):
        return {}
    return {key: chosen[0]} | ({key_of(rule["to"]): chosen[-1]} if is_variable(rule.get("to")) else {})


def _kind(rule: Mapping[str, Any]) -> str:
    return next(k for k in ("first", "every", "at", "from", "ones", "runs") if k in rule)


def _argument(
    name: str, rule: Mapping[str, Any], config: Mapping[str, Any], used: set[str], default: Any = None
) -> Any:
    """The checked value of a rule's argument `name`; None if it is not given."""
    value = _read(rule.get(name, default), config, used)
    return value if value is None else checked(ARGUMENTS[name], value, _spelled(rule.get(name)))


def _spelled(value: Any) -> str:
    return key_of(value) if is_variable(value) else str(value)


def _read(value: Any, config: Mapping[str, Any], used: set[str]) -> Any:
    if not is_variable(value):
        return value
    used.add(key_of(value))
    return config.get(key_of(value))
