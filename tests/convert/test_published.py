"""Published models: what is imported from their configs is what ships, and has the published number of parameters.

`data/published.json` gives for each shipped spec the entry of `data/param_counts.json` that holds its sizes, and what
the published config.json `says` beyond them where the defaults of its class differ.
"""

import json
import statistics
from typing import Any

import pytest

pytest.importorskip("transformers")

from registry.options import plain
from tests.convert.references import DATA
from transformer_kit.convert.declaration import declarations
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.folder import spec_of
from transformer_kit.cost.count import Parameters, parameters
from transformer_kit.cost.quick import uncompiled
from transformer_kit.model.build import assemble_distinct
from transformer_kit.spec import files
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import Spec

PUBLISHED: dict[str, dict[str, Any]] = json.loads((DATA / "param_counts.json").read_text())
SHIPPED: dict[str, dict[str, Any]] = json.loads((DATA / "published.json").read_text())
"""Shipped specs: the published model that each is, and what its config.json says beside the sizes."""
OURS = {"tutorial", "transformer-2017-decoder"}
"""Shipped specs that nobody has published a folder of."""
DECODERS = [name for name, entry in PUBLISHED.items() if entry["hf_class"].endswith(("CausalLM", "LMHeadModel"))]
NOT_DECLARED = {
    "qwen3_next": "a gated delta rule",
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
"""Biases of routers, one for each of 64 experts in 27 layers: frozen parameters there, buffers here."""


def kind(name: str) -> Any:
    """The class of a published model's config."""
    import transformers

    return getattr(transformers, PUBLISHED[name]["config_class"])


def imported(name: str, **more: Any) -> Spec:
    """The spec of the config of a published model; `more` are values that its entry leaves out."""
    config = json.loads(json.dumps({**PUBLISHED[name]["config"], **more}))
    return spec_of(kind(name)(**config).to_dict())


def counted(spec: Spec) -> Parameters:
    """What `kit build` counts of a spec."""
    with uncompiled():
        return parameters(*assemble_distinct(spec))


def architecture(spec: Spec) -> dict[str, Any]:
    """The model part in full, without what imports do not read, and with sizes that follow from others filled in."""
    model = plain(spec.model)
    for silent in ("dropout", "init"):
        del model[silent]
    for block in model["layers"]["blocks"]:
        mixer, ffn = block["mixer"], block["ffn"]
        if mixer["type"] == "attention":
            mixer["n_kv_heads"] = mixer["n_kv_heads"] or mixer["n_heads"]
            mixer["head_dim"] = mixer["head_dim"] or model["d_model"] // mixer["n_heads"]
        if ffn["type"] == "mlp":
            ffn["d_ff"] = ffn["d_ff"] or 4 * model["d_model"]
    return model


REFUSED = {"granite-4.0-h-tiny": "layer_types: 'linear_attention' is not known"}
"""Models of declared families that need a part which the kit does not have, and what says so."""


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    with pytest.raises(ConvertError, match=REFUSED[name]):
        imported(name)


@pytest.mark.parametrize("name", [n for n in DECODERS if kind(n).model_type in declarations() and n not in REFUSED])
def test_parameters_of_the_import(name: str) -> None:
    entry, found, frozen = PUBLISHED[name], counted(imported(name)), FROZEN.get(name, 0)
    assert found.total + frozen == entry["total"]
    assert found.active + frozen == (entry["total"] if entry["active"] is None else entry["active"])


def test_what_is_not_declared_is_known() -> None:
    assert {kind(n).model_type for n in DECODERS} - set(declarations()) == set(NOT_DECLARED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_is_the_import(name: str) -> None:
    entry, spec = SHIPPED[name], read(name)
    theirs = imported(entry["entry"], **entry.get("says", {}))
    assert architecture(spec) == architecture(theirs)
    assert counted(spec).total == entry.get("total", PUBLISHED[entry["entry"]]["total"])


def test_every_shipped_spec_has_a_published_counterpart() -> None:
    assert set(files.names("models")) == {*SHIPPED, *OURS}


def test_shipped_specs_are_short() -> None:
    lines = [len(path.read_text("utf-8").splitlines()) for path in (files.shipped() / "models").glob("*.yaml")]
    assert statistics.median(lines) <= 30
