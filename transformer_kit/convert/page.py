"""Import of a config.json: fill the family's templates to get a spec."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from registry.core import suggest
from transformer_kit.convert import derived, rope_keys
from transformer_kit.convert.declaration import Cases, Declaration, declarations, declared, laid
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.schema import Rule
from transformer_kit.convert.template import filled, is_variable, keys_of, leaves, spelled
from transformer_kit.spec.errors import shown
from transformer_kit.spec.layers import MAX_LAYERS, fold

ALWAYS_INERT = (
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "name_or_path",
    "use_cache", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id",
    "cls_token_id", "decoder_start_token_id", "return_dict", "output_attentions", "output_hidden_states",
    "auto_map", "_attn_implementation", "attn_implementation", "id2label", "label2id", "problem_type", "is_decoder",
    "is_encoder_decoder", "add_cross_attention", "chunk_size_feed_forward", "tokenizer_class", "task_specific_params",
    "torchscript", "pruned_heads", "finetuning_task", "prefix", "_commit_hash", "output_router_logits",
    "_experts_implementation", "quantization_config", "cross_attention_hidden_size", "max_length", "min_length",
    "keys_to_ignore_at_inference", "num_labels", "transformers.js_config", "gradient_checkpointing",
)  # fmt: skip


Templates = tuple[dict[str, Any], dict[str, Any], dict[str, Cases]]
"""Templates of the model, of every layer, and of single layers."""


def declaration_of(config: Mapping[str, Any]) -> Declaration:
    """The declaration of a config's family. Raises ConvertError for an undeclared family."""
    kind = config.get("model_type")
    found = declared(kind) if isinstance(kind, str) else None
    if found is None:
        near = suggest(kind, sorted(declarations())) if isinstance(kind, str) else ""
        raise ConvertError(
            "config.json",
            [f"model_type {kind!r:.60} has no declaration{near}; write one and pass it with --family FILE"],
        )
    return found


def page_of(config: Mapping[str, Any], declaration: Declaration, also: Sequence[str] = ()) -> dict[str, Any]:
    """The spec that `config` describes. Raises ConvertError with all problems: those in `also`, and every key that is
    not understood.
    """
    used: set[str] = set()
    problems = list(also)
    given = flat(config, declaration)
    values = values_of(config, declaration, used)
    layers = _layer_count(values, declaration)
    for key, rule in declaration.derived.items():
        if rule.get("private") or values.get(key) is None:
            values[key] = derived.listed(rule, values, layers, used)
    for key, word in declaration.last.items():
        values[key] = [*values[key][:-1], word] if isinstance(values.get(key), list) else values.get(key)
    model, block, each = templates(declaration, values, problems)
    used |= declaration.when.keys()
    own = values.get(declaration.overrides or "") or {}
    if not isinstance(own, dict) or not all(isinstance(v, dict) for v in own.values()):
        raise ConvertError("config.json", [f"{declaration.overrides}: must map layers to mappings, got {own!r:.50}"])
    blocks = [_layer(block, each, i, {**values, **own.get(str(i), {})}, used, problems) for i in range(layers)]
    page = _filled(model, values, used, problems)
    problems += [f"{key} is not given" for key in declaration.needs if key in used and values.get(key) is None]
    used |= {declaration.count, *declaration.each}
    problems += _leftover(given, declaration, used) + _together(values, declaration)
    for key in (k for k in declaration.derived if given.get(k) is None):
        problems = [f"{key} is not given{p.removeprefix(key)}" if p.startswith(f"{key}: ") else p for p in problems]
    if problems:
        raise ConvertError("config.json", [spoken(p, config, declaration) for p in dict.fromkeys(problems)])
    folded = _readable(fold(blocks))
    return {"kit": 1, "model": {**page, "layers": folded}}


def templates(declaration: Declaration, values: Mapping[str, Any], problems: list[str]) -> Templates:
    """The declaration's templates, with the cases that `values` select."""
    found = bare_templates(declaration)
    for key, cases in declaration.when.items():
        source = written(key, values, declaration)
        if source != key and values.get(source) is None and values.get(key) is None and "null" not in cases:
            problems.append(f"{source} is null, so {key} has no value; choose one of {', '.join(cases)}")
            continue
        found = with_case(found, _case(key, values.get(key), cases, problems))
    return found


def written(key: str, given: Mapping[str, Any], declaration: Declaration) -> str:
    """The key itself, or the key of its default where it has no value."""
    default = declaration.defaults.get(key)
    if given.get(key) is not None or not is_variable(default):
        return key
    return written(next(keys_of(default)), given, declaration)


def bare_templates(declaration: Declaration) -> Templates:
    """The declaration's templates, without any case."""
    return dict(declaration.model), dict(declaration.block), dict(declaration.each)


def with_case(templates: Templates, case: Mapping[str, Any]) -> Templates:
    """The templates with a case under `when` merged in."""
    model, block, each = templates
    return laid(model, case.get("model", {})), laid(block, case.get("block", {})), laid(each, case.get("each", {}))


def chosen_case(key: str, values: Mapping[str, Any], declaration: Declaration) -> dict[str, Any]:
    """The case that the value of a key under `when` selects; empty if there is none."""
    return _case(key, values.get(key), declaration.when[key], [])


def fitted(declaration: Declaration, config: Mapping[str, Any]) -> Declaration:
    """The declaration for one config, with the tensors of the selected cases."""
    values = values_of(config, declaration)
    found: dict[str, Any] = {}
    for key in declaration.when:
        found |= chosen_case(key, values, declaration).get("tensors", {})
    rules = {label: rule if isinstance(rule, str) else Rule.model_validate(rule) for label, rule in found.items()}
    return declaration.model_copy(update={"tensors": {**rules, **declaration.tensors}})


def flat(config: Mapping[str, Any], declaration: Declaration) -> dict[str, Any]:
    """The config with flat keys for rotary settings and for the mappings in `nested`."""
    out = rope_keys.flat(config, declaration.rope, frozenset(leaves(declaration.defaults)))
    for key in declaration.nested:
        inner = out.pop(key, None)
        out |= {f"{key}.{k}": v for k, v in inner.items()} if isinstance(inner, dict) else {}
    return out


def values_of(config: Mapping[str, Any], declaration: Declaration, used: set[str] | None = None) -> dict[str, Any]:
    """The value of every flat key, with defaults for absent keys. Keys that defaults read are added to `used`."""
    values = {k: v for k, v in declaration.defaults.items() if not is_variable(v)} | flat(config, declaration)
    for key, default in declaration.defaults.items():
        if isinstance(default, bool) and values[key] is None and "null" not in declaration.when.get(key, {}):
            values[key] = False  # classes test such a key for truth
    open_ = {k: v for k, v in declaration.defaults.items() if is_variable(v) and values.get(k) is None}
    for _ in open_:  # a default may depend on another default
        before = dict(values)
        for key, default in open_.items():
            values[key] = filled({"": default}, values, set() if used is None else used).get("")
        if values == before:
            break
    return values


def spoken(problem: str, config: Mapping[str, Any], declaration: Declaration) -> str:
    """The problem text, with flat keys in the config's spelling."""
    own = rope_keys.spelled(config, declaration.rope)
    flat_key = r"\brope\.[a-z_.0-9]*[a-z_0-9]"
    return re.sub(flat_key, lambda found: own.get(found[0], rope_keys.outside(found[0])), problem)


def _layer_count(values: Mapping[str, Any], declaration: Declaration) -> int:
    key = declaration.count
    count = values.get(key)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_LAYERS:
        must = f"must be a whole number from 1 to {MAX_LAYERS}, got {shown(count)}"
        raise ConvertError("config.json", [f"{key} {'is not given' if count is None else must}"])
    return count


def _case(key: str, value: Any, cases: Cases, problems: list[str]) -> dict[str, Any]:
    word = spelled(value)
    if word in cases or "else" in cases:
        return cases.get(word, cases.get("else", {}))
    given = "null" if value is None else shown(value)
    problems.append(f"{key}: {given} is not known; known are {', '.join(cases)}")
    return {}


def _layer(
    block: dict[str, Any],
    each: Mapping[str, Cases],
    index: int,
    values: Mapping[str, Any],
    used: set[str],
    problems: list[str],
) -> dict[str, Any]:
    """One layer's block."""
    own = dict(values)
    for key, cases in each.items():
        listed = values.get(key)
        if not isinstance(listed, list) or len(listed) <= index:
            must = f"must be a list with an item for each layer, got {listed!r:.60}"
            problems.append(f"{key} {'is not given' if listed is None else must}")
            continue
        own["each"] = listed[index]
        addition = _filled(_case(key, listed[index], cases, problems), own, used, problems)
        block = laid(block, addition)
    return _filled(block, own, used, problems)


def _filled(template: Any, values: Mapping[str, Any], used: set[str], problems: list[str]) -> Any:
    try:
        return filled(template, values, used)
    except ConvertError as error:
        problems += error.problems
        return {}


def _leftover(given: Mapping[str, Any], declaration: Declaration, used: set[str]) -> list[str]:
    """Messages about keys that the declaration does not know."""
    problems = []
    used = used | variables(declaration)
    known = used | set(declaration.inert) | set(ALWAYS_INERT) | set(declaration.defaults) | set(declaration.derived)
    known -= rope_keys.OUTSIDE.keys() - used
    silent = {k: v for k, v in declaration.defaults.items() if k in declaration.only and not is_variable(v)}
    for key, value in {**silent, **given}.items():
        if key in declaration.only and not any(value == v for v in declaration.only[key]):
            said = f"{key}:" if key in given else f"{key} is not given; its default"
            problems.append(f"{said} {value!r} changes the model in a way that the declaration does not support")
        elif _unknown(key, known, declaration) and value is not None:
            problems.append(f"no key '{key}' is known for {declaration.names[0]}, got {value!r:.60}")
    return problems


def _together(values: Mapping[str, Any], declaration: Declaration) -> list[str]:
    """Messages about combinations of values that the family's class cannot compute."""
    met = [pairs for pairs in declaration.never if all(values.get(k) == v for k, v in pairs.items())]
    return [" with ".join(f"{k}: {v!r}" for k, v in p.items()) + " is not supported by the family's class" for p in met]


def _unknown(key: str, known: set[str], declaration: Declaration) -> bool:
    outer, _, inner = key.partition(".")
    return (
        key not in known and key not in declaration.only and not (outer in declaration.nested and inner in ALWAYS_INERT)
    )


def _readable(layers: dict[str, Any]) -> dict[str, Any]:
    """The layers, with each kind written as its difference from the common block."""
    if "kinds" not in layers:
        return layers
    kinds = {name: _difference(layers["block"], block) for name, block in layers["kinds"].items()}
    return {**layers, "kinds": kinds}


def _difference(base: Any, other: Any) -> Any:
    """The mapping that, merged onto `base`, gives `other`; all of `other` if no merge can."""
    if not (isinstance(base, dict) and isinstance(other, dict)) or base.get("type") != other.get("type"):
        return other
    if set(base) - set(other):
        return {**other} if "type" not in other else {**dict.fromkeys(set(base) - set(other)), **other}
    return {k: _difference(base[k], v) if k in base else v for k, v in other.items() if k not in base or base[k] != v}


def variables(declaration: Declaration) -> set[str]:
    """Every key that a declaration reads in any case."""
    templates = [declaration.model, declaration.block, declaration.derived, declaration.defaults]
    templates += [t for cases in (*declaration.when.values(), *declaration.each.values()) for t in cases.values()]
    return {key for t in templates for key in leaves(t)}
