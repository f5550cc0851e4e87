"""The JSON schema of specs: it takes every spec that is good, and refuses nothing that reading would take."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml as writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformer_kit.spec import yaml
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.json_schema import json_schema
from transformer_kit.spec.read import read
from transformer_kit.spec.shipped import shipped

PAGES = sorted(shipped().glob("*/*.yaml"))
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def loaded(path: Path) -> Any:
    """A spec as JSON has it: keys are text."""
    return json.loads(json.dumps(yaml.parse(path.read_text("utf-8"), str(path))[0]))


def accepts(page: Any) -> bool:
    return bool(VALIDATOR.is_valid(page))


def mappings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all mappings in a spec."""
    if isinstance(value, dict):
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in inside:
        yield from mappings(member, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def test_is_a_schema_whose_references_all_lead_somewhere() -> None:
    VALIDATOR.check_schema(SCHEMA)

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        if isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(SCHEMA))
    assert found
    assert {reference.removeprefix("#/$defs/") for reference in found} <= set(SCHEMA["$defs"])


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_every_shipped_page_is_accepted_and_no_misspelled_one(path: Path) -> None:
    page = loaded(path)
    VALIDATOR.validate(page)
    for place in mappings(page):
        bent = copy.deepcopy(page)
        if place[-1:] in (("kinds",), ("at",)):
            continue  # their keys are names of the spec's own
        at(bent, place)["misspelled"] = 1
        assert not accepts(bent), place


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_resolved_pages_are_accepted(path: Path) -> None:
    VALIDATOR.validate(json.loads(json.dumps(read(path).resolved())))


def test_slots_take_names_and_mappings_of_their_own_family() -> None:
    page = loaded(shipped() / "models" / "tutorial.yaml")
    for position, good in [
        ("rope", True),
        ({"type": "rope", "theta": 5.0}, True),
        ("gated", False),
        ("rop", False),
        ({"theta": 5.0}, False),
        ({"type": "alibi", "theta": 5.0}, False),
        ({"type": "rope", "theta": "5"}, False),
        ({"type": "rope", "theta": -5}, False),
        (None, False),
        (3, False),
    ]:
        page["model"]["position"] = position
        assert accepts(page) is good, position
    page["model"]["position"] = "none"
    page["model"]["layers"]["block"]["mixer"] = "attention"  # which needs n_heads
    assert not accepts(page)


def test_what_is_laid_on_a_part_may_be_partial() -> None:
    layers = {
        "kinds": {"local": {"mixer": {"window": 8}}},
        "pattern": ["local*3", "block"],
        "at": {"-1": {"ffn": "gated"}},
    }
    page = loaded(shipped() / "models" / "tutorial.yaml")
    page["model"]["layers"] |= layers
    VALIDATOR.validate(page)
    for kinds in ({"local": {"mixer": {"windw": 8}}}, {"local": {"ffn": "rope"}}, {"local": 3}):
        assert not accepts({**page, "model": {**page["model"], "layers": {**page["model"]["layers"], "kinds": kinds}}})
    assert accepts({"extends": "tutorial", "model": {"d_model": 64, "layers": {"block": {"ffn": {"bias": True}}}}})
    assert accepts({"model": {"extends": "tutorial", "d_model": 64}})
    assert not accepts({"extends": "tutorial", "model": {"d_mode": 64}})
    assert not accepts({"model": {"d_model": 64}})
    assert not accepts({"extends": "no-such-spec"})


def test_a_run_needs_what_a_run_needs() -> None:
    page = loaded(shipped() / "runs" / "quickstart.yaml")
    assert accepts(page | {"model": "tutorial"})
    assert accepts(page | {"model": "../mine.yaml"})
    assert not accepts(page | {"model": "tutoria"})
    assert not accepts({k: v for k, v in page.items() if k != "optimizer"})
    assert not accepts({k: v for k, v in page.items() if k != "train"})


VALUES = st.sampled_from(
    [None, True, 0, -1, 3, 0.5, "rope", "none", "gated", "attention", "x", [], {}, {"type": "rope"}, [1]]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_the_schema_refuses_reading_refuses_too(tmp_path: Path, data: st.DataObject) -> None:
    page = loaded(data.draw(st.sampled_from(PAGES)))
    group = at(page, data.draw(st.sampled_from(list(mappings(page)))))
    if data.draw(st.booleans()) and group:
        group[data.draw(st.sampled_from(sorted(group)))] = data.draw(VALUES)
    elif group:
        del group[data.draw(st.sampled_from(sorted(group)))]
    if accepts(page):
        return
    path = tmp_path / "page.yaml"
    path.write_text(writer.safe_dump(page))
    with pytest.raises(SpecError):
        read(path)
