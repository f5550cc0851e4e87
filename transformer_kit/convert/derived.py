"""Lists over the layers that a config gives by a rule: the first k, every n-th, a set of indices; and back.

    {first: $k, then: a, else: b}                 layers 0..k-1 are a
    {every: $n, offset: $o, then: a, else: b}     layer i is a when i % n == o (n - 1 when not given)
    {at: $indices, then: a, else: b}              the listed layers are a
    {from: $k, to: $l, then: a, else: b}          layers k..l are a, where l = -1 is the last one
    {runs: $runs}                                 [[[a, b], 2], ...]: words in turn, so many times
    {ones: $flags, then: a, else: b}              a list of 0 and 1, one for each layer
    {all: a}                                      every layer

With `given: $key` a rule holds only where that key is true; else every layer is what `then` says. A rule under `or`
holds where the key of the rule above it is null. With `private: true` the class knows nothing of the list: no
config has it, coming in or going out, and a model whose layers the rule cannot say does not go out.
"""

from collections.abc import Mapping
from typing import Any

from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.template import is_variable, key_of


def listed(rule: Mapping[str, Any], config: Mapping[str, Any], layers: int, used: set[str]) -> list[str] | None:
    """One word for each layer; None when the rule's key is null."""
    if "all" in rule:
        return [_read(rule["all"], config, used)] * layers
    kind = _kind(rule)
    if not _read(rule.get("given", True), config, used):
        return [rule["then"]] * layers
    given = _read(rule[kind], config, used)
    if kind == "runs":
        return [word for words, times in given for word in words * times]
    if given is None:
        return listed(rule["or"], config, layers, used) if "or" in rule else [rule["else"]] * layers
    last = _read(rule.get("to"), config, used)
    offset = _read(rule.get("offset"), config, used)
    chosen = {
        "first": lambda i: i < given,
        "every": lambda i: given > 0 and i % given == (given - 1 if offset is None else offset),
        "at": lambda i: i in given,
        "from": lambda i: given <= i <= (layers - 1 if last in (None, -1) else last),
        "ones": lambda i: bool(given[i]),
    }[kind]
    try:
        return [rule["then"] if chosen(i) else rule["else"] for i in range(layers)]
    except (TypeError, IndexError):
        problem = f"{rule[kind]}: cannot say which layers are meant, got {given!r:.60}"
        raise ConvertError("config.json", [problem]) from None


def solution(rule: Mapping[str, Any], words: list[str]) -> dict[str, Any]:
    """Keys of the config that make the rule give `words`; empty when none do."""
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
    for n in range(1, len(words) + 2):
        for offset in range(n) if "offset" in rule and is_variable(rule["offset"]) else [rule.get("offset", n - 1)]:
            if words == [rule["then"] if i % n == offset else rule["else"] for i in range(len(words))]:
                return {key: n} | ({key_of(rule["offset"]): offset} if is_variable(rule.get("offset")) else {})
    return {}


def _range(rule: Mapping[str, Any], key: str, chosen: list[int]) -> dict[str, Any]:
    if not chosen or chosen != list(range(chosen[0], chosen[-1] + 1)):
        return {}
    return {key: chosen[0]} | ({key_of(rule["to"]): chosen[-1]} if is_variable(rule.get("to")) else {})


def _kind(rule: Mapping[str, Any]) -> str:
    return next(k for k in ("first", "every", "at", "from", "ones", "runs") if k in rule)


def _read(value: Any, config: Mapping[str, Any], used: set[str]) -> Any:
    if not is_variable(value):
        return value
    used.add(key_of(value))
    return config.get(key_of(value))
