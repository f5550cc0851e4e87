"""Hypothesis strategies: valid options of any part, and tiny valid specs over every registered part."""

import math
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from registry import core
from registry.options import Group, Options, Slot
from transformer_kit.model.build import assemble
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.schema import ModelSpec, Spec
from transformer_kit.testing.carriers import D_MODEL, MAX_SEQ_LEN, VOCAB
from transformer_kit.testing.values import bounds, lengths, sound, values

REACH = 8
"""Range of whole numbers above their minimum."""


@st.composite
def options_for(draw: st.DrawFn, part: Any, **given: Any) -> Options:
    """Valid options of `part`, drawn from the annotations and bounds of its fields and kept small.

    Slots hold any registered part of their family. Fields in `given` are not drawn.
    """
    drawn = _page(part.Options, given).map(lambda page: _options_or_none(part, page))
    options = draw(drawn.filter(lambda options: options is not None))
    assert options is not None
    return options


@st.composite
def specs(draw: st.DrawFn, max_layers: int = 3, **given: Any) -> Spec:
    """Tiny valid specs: any parts with any options, in stacks of unequal layers. Refused specs are not drawn.

    Keywords fix fields of the model, such as `position={"type": "rope"}`.
    """
    sizes = {"vocab_size": VOCAB, "d_model": D_MODEL, "max_seq_len": MAX_SEQ_LEN}
    blocks = st.lists(_slot("block"), min_size=1, max_size=max_layers)
    pages = st.tuples(_page(ModelSpec, {**sizes, "layers": None, **given}), blocks).map(_spec_or_none)
    spec = draw(pages.filter(lambda spec: spec is not None))
    assert spec is not None
    return spec


def _spec_or_none(drawn: tuple[dict[str, Any], list[Options]]) -> Spec | None:
    page, blocks = drawn
    try:
        spec = Spec.of({"plugins": sorted(core.active()), "model": {**page, "layers": {"blocks": blocks}}})
        assemble(spec)
    except SpecError:
        return None
    return spec


def _options_or_none(part: Any, page: dict[str, Any]) -> Options | None:
    try:
        options: Options = part.Options.model_validate(page)
    except ValidationError:
        return None
    return options


def _page(group: type[Group], given: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {n: _field(f) for n, f in group.model_fields.items() if n not in given}
    required = {n: s for n, s in fields.items() if group.model_fields[n].is_required()}
    optional = {n: s for n, s in fields.items() if n not in required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda page: {**page, **given})


def _field(field: FieldInfo) -> st.SearchStrategy[Any]:
    if field.examples:
        return st.sampled_from(values(field))
    drawn = _drawn(field.annotation, list(field.metadata))
    return st.sampled_from(values(field)) if drawn is None else drawn


def _drawn(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any] | None:
    slot = next((m for m in metadata if isinstance(m, Slot)), None)
    if slot is not None:
        return _slot(slot.family)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _drawn(arguments[0], [*metadata, *arguments[1:]])
    if origin in (Union, UnionType):
        return _any_of([_drawn(a, metadata) for a in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return _tuple(arguments, metadata)
    return _scalar(annotation, metadata)


def _any_of(drawn: list[st.SearchStrategy[Any] | None]) -> st.SearchStrategy[Any] | None:
    known = [d for d in drawn if d is not None]
    return st.one_of(known) if len(known) == len(drawn) else None


def _scalar(kind: Any, metadata: list[Any]) -> st.SearchStrategy[Any] | None:
    low, high, step = bounds(metadata)
    if kind is int:
        least = math.ceil((low if math.isfinite(low) else 0) / step)
        return st.integers(least, min(least + REACH, int(min(high, 2**31) // step))).map(lambda n: n * step)
    if kind is float:
        low, high = max(low, -4.0), min(high, max(low, 0.0) + 4.0)
        telling = [x for x in (low + (high - low) / 4, 0.5, 2.0) if low <= x <= high]
        return st.sampled_from(telling) | st.floats(max(low, 0.05) if low >= 0 else low, high, width=64)
    if isinstance(kind, type) and issubclass(kind, Group):
        return _page(kind, {}).filter(lambda page: _is_valid(kind, page))
    plain: dict[Any, st.SearchStrategy[Any]] = {bool: st.booleans(), NoneType: st.none()}
    return plain.get(kind)


def _is_valid(group: type[Group], page: dict[str, Any]) -> bool:
    try:
        group.model_validate(page)
    except ValidationError:
        return False
    return True


def _tuple(items: tuple[Any, ...], metadata: list[Any]) -> st.SearchStrategy[Any] | None:
    if len(items) == 2 and items[1] is Ellipsis:
        each = _drawn(items[0], [])
        shortest, longest = lengths(metadata)
        return (
            None if each is None else st.lists(each, min_size=shortest, max_size=min(longest, shortest + 3)).map(tuple)
        )
    columns = [_drawn(i, []) for i in items]
    return None if None in columns else st.tuples(*(c for c in columns if c is not None))


def _slot(family: str) -> st.SearchStrategy[Options]:
    return st.deferred(lambda: st.one_of([options_for(part) for part in sound(family)]))
