"""Options as rows of a table: name, type in words, default, what it does."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from registry.options import Group, plain, slot_family

UNBOUNDED = 1_000_000_000
_WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def rows(group: type[Group], prefix: str = "", *, section: str | None = None, folder: str = "") -> list[str]:
    """A row for each field; fields of nested groups as `outer.inner`, or as links to sections below `section`."""
    found = []
    for name, field in group.model_fields.items():
        what = (field.description or "").replace("\n", " ").replace("|", "\\|")
        inner = None if slot_family(field) else _group(field.annotation)
        if inner is not None and section is None:
            if field.default is None:
                found.append(f"| `{prefix}{name}` | mapping or null | `null` | {what} |")
            found += rows(inner, f"{prefix}{name}.", folder=folder)
        else:
            kind = _type(field, folder) if inner is None else f"[mapping](#{section}{name})"
            found.append(f"| `{prefix}{name}` | {kind} | {_default(field)} | {what} |")
    return found


def code(value: Any) -> str:
    """A value as YAML writes it, in code quotes."""
    value = plain(sorted(value) if isinstance(value, (frozenset, set)) else value)
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=1000, sort_keys=False).strip()
    return f"`{text.removesuffix('...').strip()}`"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined:
        return ""
    return "its own" if isinstance(value, Group) and getattr(value, "part", None) is None else code(value)


def _type(field: FieldInfo, folder: str) -> str:
    family = slot_family(field)
    if family is not None:
        link = f"[{family}]({folder}{family}.md)"
        many = str(field.annotation).startswith("tuple")
        optional = NoneType in get_args(field.annotation)
        return f"list of {link}" if many else f"{link} or null" if optional else link
    return words(field.annotation, field.metadata)


def words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in plain words, with its bounds."""
    origin, inner = get_origin(annotation), get_args(annotation)
    shown = next((m.json_schema_input_type for m in metadata if isinstance(m, BeforeValidator)), None)
    if isinstance(shown, UnionType):
        return words(shown)
    if origin is Annotated:
        return words(inner[0], inner[1:])
    if origin in (Union, UnionType):
        return " or ".join("null" if a is NoneType else words(a) for a in inner)
    if origin is Literal:
        return " or ".join(code(a) for a in inner)
    if origin in (tuple, list):
        items = [a for a in inner if a is not Ellipsis]
        return f"list of {words(items[0])}" if len(set(items)) == 1 and Ellipsis in inner else _several(items)
    if _group(annotation) is not None:
        return "mapping"
    return _WORDS.get(annotation, "value") + _bounds(metadata) + _length(metadata)


def _several(items: list[Any]) -> str:
    if len(set(map(str, items))) == 1:
        return f"list of {len(items)}, each a {words(items[0])}" if len(items) > 1 else f"list of {words(items[0])}"
    return "list of " + ", ".join(map(words, items))


def _bounds(metadata: Sequence[Any]) -> str:
    low = next((m for m in metadata if isinstance(m, (Ge, Gt))), None)
    high = next((m for m in metadata if isinstance(m, (Le, Lt))), None)
    found = []
    if low is not None:
        found.append(f"at least {_number(low.ge)}" if isinstance(low, Ge) else f"above {_number(low.gt)}")
    if high is not None and _number(high.le if isinstance(high, Le) else high.lt):
        found.append(f"at most {_number(high.le)}" if isinstance(high, Le) else f"below {_number(high.lt)}")
    return f" ({', '.join(found)})" if found else ""


def _number(value: Any) -> str:
    """A bound as text; empty for those that only keep absurd values out, of which the spec on keys tells."""
    return "" if value >= UNBOUNDED else f"{value:,}"


def _length(metadata: Sequence[Any]) -> str:
    return " (not empty)" if any(isinstance(m, MinLen) and m.min_length for m in metadata) else ""


def _group(annotation: Any) -> type[Group] | None:
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Group)), None)
