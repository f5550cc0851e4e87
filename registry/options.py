"""Options: the YAML keys of a part. Checked, frozen, documented by the string under each field.

    class Options(FFN.Options):
        d_ff: Width | None = None
        '''Hidden width.'''
        activation: ActivationSlot = named("silu")
        '''Activation of the gate.'''

A slot is a field that holds another part. It takes a name, a mapping with `type`, or an Options object, and looks
the name up when it validates, so parts registered later and plugins need no rebuilt class.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from registry import core

Count = Annotated[int, Ge(1), Le(1_000_000_000)]
"""A number of things, at least one."""
Natural = Annotated[int, Ge(0), Le(1_000_000_000)]
"""A number of things, possibly none."""
Width = Annotated[int, Ge(1), Le(1_048_576)]
"""A number of features. The bound keeps absurd specs from overflowing."""
Positive = Annotated[float, Gt(0.0), Le(1e12)]
"""A finite number above zero."""
NonNegative = Annotated[float, Ge(0.0), Le(1e12)]
"""A finite number, zero or more."""
Rate = Annotated[float, Ge(0.0), Lt(1.0)]
"""A probability below one, such as a dropout rate."""
Fraction = Annotated[float, Gt(0.0), Le(1.0)]
"""A share of a whole, above nothing."""


class Group(BaseModel):
    """A checked, frozen group of values: unknown keys and wrong types are errors, nothing is converted."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class Options(Group):
    """Base of every part's options."""

    part: ClassVar[Any] = None
    """The class these options configure."""


def named(default: str | dict[str, Any]) -> Any:
    """Default of a slot, as it would be written in YAML."""
    return Field(default=default)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


AsTuple = BeforeValidator(_as_tuple)
"""Lets a tuple field take a YAML list: `Annotated[tuple[int, ...], AsTuple]`."""


class Slot:
    """Marks a field that holds a part of one family: `Annotated[Options, Slot("activation")]`."""

    def __init__(self, family: str) -> None:
        self.family = family

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        write = core_schema.plain_serializer_function_ser_schema(plain)
        return core_schema.no_info_plain_validator_function(self.read, serialization=write)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": ["string", "object"], "family": self.family}

    def read(self, value: Any) -> Options:
        """Options of the part that `value` names; raises errors that pydantic places at the field."""
        if isinstance(value, Options):
            return self._own(value)
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
            raise PydanticCustomError("slot", "{text}", {"text": self._shape(value)})
        try:
            part = core.get(self.family, value["type"])
        except core.RegistryError as error:
            raise PydanticCustomError("part", "{text}", {"text": str(error)}) from error
        return part.Options.model_validate({k: v for k, v in value.items() if k != "type"})

    def _own(self, value: Options) -> Options:
        if value.part is None or value.part.family != self.family:
            owner = f"{value.part.family} '{value.part.name}'" if value.part else "no part"
            raise PydanticCustomError("slot", "{text}", {"text": f"must be a part of {self.family}, got {owner}"})
        return value

    def _shape(self, value: Any) -> str:
        one = f"{'an' if self.family[0] in 'aeiou' else 'a'} {self.family}"
        if isinstance(value, Mapping):
            keys = ascii(", ".join(map(str, value)))[1:-1][:100] or "nothing"
            space = "; YAML wants a space after a colon" if "type:" in keys else ""
            return f"needs `type:`, the name of {one} ({', '.join(core.names(self.family))}); got only {keys}{space}"
        return f"must be the name of {one} or a mapping with `type:`, got {ascii(value)[:100]}"


def slot_family(field: FieldInfo) -> str | None:
    """The family whose part a field holds; None for a plain field."""
    return next((s.family for s in _slots(field)), None)


def _slots(field: FieldInfo) -> list[Slot]:
    found = [m for m in field.metadata if isinstance(m, Slot)]
    pending = [field.annotation]
    while pending:
        annotation = pending.pop()
        found += [m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Slot)]
        pending += getattr(annotation, "__args__", ())
    return found


def plain(value: Any) -> Any:
    """Options as YAML would write them: mappings, lists and scalars, each part with its `type`, defaults included."""
    if isinstance(value, Options) and value.part is not None:
        return {"type": value.part.name, **_fields(value)}
    if isinstance(value, Group):
        return _fields(value)
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    return value


def _fields(group: Group) -> dict[str, Any]:
    return {name: plain(getattr(group, name)) for name in type(group).model_fields}
