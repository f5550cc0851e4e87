"""Export of a spec as a config.json: the family's templates, solved for their variables. The caller verifies it."""

from collections.abc import Mapping
from typing import Any

from transformer_kit.convert import derived, rope_keys
from transformer_kit.convert.declaration import Cases, Declaration, laid
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.page import bare_templates, page_of, with_case
from transformer_kit.convert.template import filled, holds, is_variable, leaves, size, solved, unspelled


def config_of(page: Mapping[str, Any], declaration: Declaration) -> dict[str, Any]:
    """The config.json keys that describe a canonical spec, as far as the family can. The caller verifies the result."""
    return shortest(*solutions(page, declaration), declaration)


def solutions(page: Mapping[str, Any], declaration: Declaration) -> tuple[dict[str, Any], list[str]]:
    """Flat keys that describe a canonical spec, and keys that may also have to be null."""
    model, blocks = page["model"], page["model"]["layers"]["blocks"]
    config: dict[str, Any] = {}
    config[declaration.count] = len(blocks)
    found = bare_templates(declaration)
    for key, cases in declaration.when.items():
        good = {word: case for word, case in cases.items() if _stands(case, model, blocks)}
        word = max(good, key=lambda w: size(good[w]), default=None)
        if word is not None:
            found = with_case(found, cases[word])
            silent = word == "null" and declaration.defaults.get(key) is None
            config |= {} if word == "else" or silent else {key: unspelled(word)}
    merged_model, merged_block, each = found
    config |= solved(merged_model, model)
    config |= solved(merged_model, model, config)  # values that depend on other keys
    for block in (*reversed(blocks), *reversed(blocks)):  # twice, for values that depend on other keys
        config |= {k: v for k, v in solved(merged_block, block, config).items() if v is not None}
    config |= _solved_lists(each, blocks, declaration)
    config.pop("each", None)
    written = {**filled(declaration.write, config, set()), **config}
    return written, [k for k in _silent(declaration, merged_model, merged_block) if k not in written]


def solutions_with_sizes(
    page: Mapping[str, Any], sized: Mapping[str, Any], declaration: Declaration
) -> tuple[dict[str, Any], list[str]]:
    """Like `solutions`, for a spec with explicit widths. A key stays open if its default is null and `page` leaves the
    width open.
    """
    written, unset = solutions(sized, declaration)
    bare, _ = solutions(page, declaration)
    open_ = {key for key, default in declaration.defaults.items() if default is None and key not in bare}
    return {key: value for key, value in written.items() if key not in open_}, unset


def longest(written: Mapping[str, Any], unset: list[str], declaration: Declaration) -> dict[str, Any]:
    """The config.json with null for every key in `unset`."""
    return _spread({**dict.fromkeys(unset), **written}, declaration)


def shortest(written: Mapping[str, Any], unset: list[str], declaration: Declaration) -> dict[str, Any]:
    """The config.json with null for only those keys in `unset` whose default would change the model."""
    full, needed = longest(written, unset, declaration), unset
    for key in unset:
        rest = [k for k in needed if k != key]
        less = _spread({**dict.fromkeys(rest), **written}, declaration)
        if _says_same(less, full, declaration):
            full, needed = less, rest
    return full


def _says_same(one: dict[str, Any], other: dict[str, Any], declaration: Declaration) -> bool:
    try:
        return page_of(one, declaration) == page_of(other, declaration)
    except ConvertError:
        return False


def _spread(config: Mapping[str, Any], declaration: Declaration) -> dict[str, Any]:
    """The flat keys in config.json's nested form."""
    return _nested(rope_keys.nested(config, declaration.rope, frozenset(leaves(declaration.defaults))), declaration)


def _stands(case: Mapping[str, Any], model: Any, blocks: list[Any]) -> bool:
    """Whether a case matches the model and some block, and each of its lists matches some block."""
    common = holds(case.get("model", {}), model) and any(holds(case.get("block", {}), block) for block in blocks)
    lists = [list(cases.values()) for cases in case.get("each", {}).values()]
    return common and all(any(holds(t, block) for t in templates for block in blocks) for templates in lists)


def _silent(declaration: Declaration, *templates: Any) -> list[str]:
    """Keys of templates with a default that is not null, so their absence has a meaning."""
    read = {key for template in templates for key in leaves(template)}
    return [k for k, v in declaration.defaults.items() if k in read and v is not None and not is_variable(v)]


def _nested(config: Mapping[str, Any], declaration: Declaration) -> dict[str, Any]:
    """The inverse of `flat`, for the mappings in `nested`."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        outer, _, inner = key.partition(".")
        if inner and outer in declaration.nested:
            out.setdefault(outer, {})[inner] = value
        else:
            out[key] = value
    return out


def _solved_lists(each: Mapping[str, Cases], blocks: list[Any], declaration: Declaration) -> dict[str, Any]:
    """The keys that give each layer's case, for every list. An earlier list may differ where a later list's case
    overrides it.
    """
    found: dict[str, dict[str, Any]] = {}
    above: list[dict[str, Any]] = [{} for _ in blocks]
    for key, cases in reversed(list(each.items())):
        chosen = [_chosen(cases, block, over) for block, over in zip(blocks, above, strict=True)]
        words = [word for word in chosen if word is not None]
        if len(words) == len(blocks):
            found[key] = _solved_list(key, words, cases, blocks, declaration)
            above = [laid(cases[word], over) for word, over in zip(words, above, strict=True)]
    return {k: v for key in each for k, v in found.get(key, {}).items()}


def _solved_list(
    key: str, chosen: list[str], cases: Cases, blocks: list[Any], declaration: Declaration
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    words = []
    for word, block in zip(chosen, blocks, strict=True):
        bound = solved(cases[word], block, found)
        words.append(bound.pop("each", word) if word == "else" else unspelled(word))
        found |= bound
    if key in declaration.derived:
        rule = declaration.derived[key]
        if not any(leaves(rule)) and words == derived.listed(rule, {}, len(words), set()):
            return found  # the default already gives this
        found |= derived.solution(rule, words)
    return found if declaration.derived.get(key, {}).get("private") else {**found, key: words}


def _chosen(cases: Cases, value: Mapping[str, Any], above: Mapping[str, Any]) -> str | None:
    """The most specific case that matches; if none does, one that matches except where `above` overrides it."""
    good = [word for word, template in cases.items() if holds(template, value)]
    good = good or [word for word, template in cases.items() if holds(_without(template, above), value)]
    return max(good, key=lambda word: size(cases[word]), default=None)


def _without(template: Any, above: Mapping[str, Any]) -> Any:
    """A template without the entries that another one replaces."""
    if is_variable(template) or not isinstance(template, Mapping):
        return template
    kept: dict[str, Any] = {}
    for key, value in template.items():
        if key not in above:
            kept[key] = value
        elif isinstance(value, Mapping) and isinstance(above[key], Mapping) and not is_variable(above[key]):
            kept[key] = _without(value, above[key])
    return kept
