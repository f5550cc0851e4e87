"""The JSON schema of a spec, so that an editor completes names and marks mistakes.

    json_schema()     a mapping, ready for `json.dumps`

Each family has an entry in `$defs`: a name, or a mapping with `type` and that part's options. Specs to be merged onto
others (`kinds`, `at`, a spec that `extends` another) may omit keys: their entries begin with `partial:`. The schema
finds fewer faults than reading a spec; everything that it refuses, reading refuses too.
"""

from collections.abc import Callable
from typing import Any

from registry import core, plugins
from transformer_kit.spec import files
from transformer_kit.spec.layers import KEYS, MAX_LAYERS
from transformer_kit.spec.schema import ModelSpec, RunSpec, Spec

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TITLE = "Spec of the transformer kit"

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The schema of every spec that can be read here, with the parts of all valid installed plugins."""
    sound = frozenset(n for n in plugins.namespaces() if plugins.problem(n) is None)
    with core.activate(sound):
        full = _definitions()
    partial = {f"partial:{name}": _partial(schema) for name, schema in full.items()}
    partial.update(_partial_slots(full))
    return {
        "$schema": DRAFT,
        "title": TITLE,
        "type": "object",
        "if": {"required": ["extends"]},
        "then": _ref("partial:RunSpec"),
        "else": {"if": _any_key(_run_keys()), "then": _ref("RunSpec"), "else": _ref("Spec")},
        "$defs": {**full, **partial},
    }


def _definitions() -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    for page in (Spec, RunSpec):
        found |= _split(page.model_json_schema(), page.__name__, "")
        found[page.__name__]["properties"] |= {"model": _ref("model"), "extends": _reference("The spec it builds on.")}
    architecture = found[ModelSpec.__name__]
    architecture["properties"]["extends"] = _reference("The spec whose model it builds on.")
    found["Layers"] = _layers()
    found["model"] = {
        "if": {"type": "string"},
        "then": _reference("The spec that describes the model."),
        "else": {"if": {"required": ["extends"]}, "then": _ref("partial:ModelSpec"), "else": _ref("ModelSpec")},
    }
    for family in core.families():
        found |= _family(family)
    return found


def _family(family: str) -> dict[str, Schema]:
    """The slot of a family, and each of its parts."""
    found: dict[str, Schema] = {}
    for name in core.names(family):
        try:
            part = core.get(family, name)
        except core.RegistryError:
            continue  # a broken part excludes only its own name
        own = f"{family}.{name}"
        schema = _split(part.Options.model_json_schema(), own, f"{own}:")
        schema[own]["properties"] = {"type": {"const": name}, **schema[own].get("properties", {})}
        schema[own]["required"] = ["type", *schema[own].get("required", [])]
        schema[own]["description"] = core.summary(family, name)
        found |= schema
    parts = [name for name in found if ":" not in name]
    bare = [found[p]["properties"]["type"]["const"] for p in parts if found[p]["required"] == ["type"]]
    found[family] = _slot(core.family_summary(family), bare, parts)
    return found


def _slot(description: str, bare: list[str], parts: list[str]) -> Schema:
    names = [{"enum": bare}] if bare else []
    return {"description": description, "anyOf": [*names, *map(_ref, parts)]}


def _partial_slots(full: dict[str, Schema]) -> dict[str, Schema]:
    """Slots merged onto a part: any name is valid, and a mapping without `type` changes options of the same part."""
    found = {}
    for family in core.families():
        parts = [p["$ref"].removeprefix("#/$defs/") for p in full[family]["anyOf"] if "$ref" in p]
        names = [full[p]["properties"]["type"]["const"] for p in parts]
        found[f"partial:{family}"] = _slot(full[family]["description"], names, [f"partial:{p}" for p in parts])
    return found


def _layers() -> Schema:
    change = _ref("partial:block")
    step = r"^[A-Za-z_][A-Za-z0-9_-]*(\*[0-9]{1,4})?$"
    properties: dict[str, Schema] = {
        "count": {"type": "integer", "minimum": 1, "maximum": MAX_LAYERS, "description": "How many layers."},
        "block": {"type": "object", **_ref("block")},
        "kinds": {
            "type": "object",
            "additionalProperties": change,
            "description": "Named variants, merged onto `block`.",
        },
        "pattern": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "pattern": step},
            "description": "Order of the kinds, such as [local*3, block]; repeated to `count`.",
        },
        "at": {
            "type": "object",
            "patternProperties": {"^-?[0-9]+$": change},
            "additionalProperties": False,
            "description": "Single layers, merged last; negative numbers count from the end.",
        },
    }
    assert tuple(properties) == KEYS
    blocks = {"type": "array", "items": _ref("block"), "description": "Every layer's block, one by one."}
    return {
        "if": {"required": ["blocks"]},
        "then": _closed({"blocks": blocks}, []),
        "else": _closed(properties, ["count", "block"]),
    }


def _closed(properties: Schema, required: list[str]) -> Schema:
    """A mapping with these keys alone."""
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _split(schema: Schema, name: str, prefix: str) -> dict[str, Schema]:
    """A schema of pydantic's and its groups, as entries of one `$defs`."""
    groups = schema.pop("$defs", {})
    entries = {name: schema, **{prefix + group: entry for group, entry in groups.items()}}

    def adapt(node: Schema) -> Schema:
        if isinstance(node.get("family"), str):
            return {k: v for k, v in node.items() if k not in ("family", "type")} | _ref(node["family"])
        if isinstance(node.get("$ref"), str):
            return node | _ref(prefix + node["$ref"].removeprefix("#/$defs/"))
        return node

    return {key: _walk(_untitled(entry), adapt) for key, entry in entries.items()}


def _partial(schema: Schema) -> Schema:
    def adapt(node: Schema) -> Schema:
        if isinstance(node.get("$ref"), str):
            name = node["$ref"].removeprefix("#/$defs/").removeprefix("partial:")
            node = node | _ref(f"partial:{name}")
        if set(node) == {"required"}:
            return node  # a condition, not a requirement
        return {k: v for k, v in node.items() if k != "required" or not isinstance(v, list)}

    changed: Schema = _walk(schema, adapt)
    return changed


def _walk(node: Any, adapt: Callable[[Schema], Schema]) -> Any:
    if isinstance(node, list):
        return [_walk(item, adapt) for item in node]
    if isinstance(node, dict):
        return {key: _walk(value, adapt) for key, value in adapt(node).items()}
    return node


def _untitled(schema: Schema) -> Schema:
    """The schema without the titles that pydantic makes of field names, since editors show descriptions."""
    plain: Schema = _walk(
        schema, lambda node: {k: v for k, v in node.items() if k != "title" or not isinstance(v, str)}
    )
    return plain


def _reference(description: str) -> Schema:
    """The name of a shipped spec, or a path to a spec."""
    return {
        "type": "string",
        "anyOf": [{"enum": [*files.names(), *files.names("runs")]}, {"pattern": r"\.ya?ml$"}],
        "description": description,
    }


def _any_key(keys: list[str]) -> Schema:
    return {"anyOf": [{"required": [key]} for key in keys]}


def _run_keys() -> list[str]:
    return [key for key in RunSpec.model_fields if key not in Spec.model_fields]


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}
