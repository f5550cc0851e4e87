"""Published models: the parameters of their imports, counted on the meta device, are the published integers."""

import json
from functools import cache
from typing import Any

import pytest

pytest.importorskip("transformers")

from tests.convert.references import DATA
from transformer_kit.convert.declaration import declarations
from transformer_kit.convert.folder import spec_of
from transformer_kit.cost.count import Parameters, parameters
from transformer_kit.cost.quick import uncompiled
from transformer_kit.model.build import assemble
from transformer_kit.spec.schema import Spec

PUBLISHED: dict[str, dict[str, Any]] = json.loads((DATA / "param_counts.json").read_text())
DECODERS = [name for name, entry in PUBLISHED.items() if entry["hf_class"].endswith(("CausalLM", "LMHeadModel"))]
NOT_DECLARED = {
    "qwen3_next": "a gated delta rule",
    "granitemoehybrid": "a state space (Mamba-2)",
    "minimax": "lightning attention",
    "bamba": "a state space (Mamba-2)",
    "jamba": "a state space (Mamba)",
    "mamba": "a state space (Mamba)",
    "falcon_mamba": "a state space (Mamba)",
    "mamba2": "a state space (Mamba-2)",
    "recurrent_gemma": "a gated linear recurrence",
    "lfm2": "a short convolution",
    "rwkv": "a recurrence (RWKV-4)",
}
"""Families of decoders, by model_type, and the mixer that they need and the kit has no part for yet."""
FROZEN = {"ernie-4.5-21b-a3b": 27 * 64}
"""Biases of routers, for 64 experts in each of 27 layers: frozen parameters there, buffers here."""


def kind(name: str) -> Any:
    """The class of a published model's config."""
    import transformers

    return getattr(transformers, PUBLISHED[name]["config_class"])


def imported(name: str, **more: Any) -> Spec:
    """The spec of the config of a published model; `more` are values that its entry leaves out."""
    config = json.loads(json.dumps({**PUBLISHED[name]["config"], **more}))
    return spec_of(kind(name)(**config).to_dict())


@cache
def counted(name: str) -> Parameters:
    """What `kit build` counts of the import."""
    with uncompiled():
        return parameters(assemble(imported(name)))


@pytest.mark.parametrize("name", [n for n in DECODERS if kind(n).model_type in declarations()])
def test_parameters_of_the_import(name: str) -> None:
    entry, found = PUBLISHED[name], counted(name)
    frozen = FROZEN.get(name, 0)
    assert found.total + frozen == entry["total"]
    assert found.active + frozen == (entry["total"] if entry["active"] is None else entry["active"])


def test_what_is_not_declared_is_known() -> None:
    assert {kind(n).model_type for n in DECODERS} - set(declarations()) == set(NOT_DECLARED)
