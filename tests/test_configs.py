"""Every shipped spec reads and assembles."""

from pathlib import Path

import pytest

from transformer_kit.model.build import assemble_distinct
from transformer_kit.spec import files
from transformer_kit.spec.read import read

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("name", [*files.names("models"), *files.names("runs")])
def test_assembles(name: str) -> None:
    model, _ = assemble_distinct(read(name))
    assert all(p.device.type == "meta" for p in model.parameters())


def test_every_config_file_is_a_model_or_a_run() -> None:
    found = {p.relative_to(CONFIGS).parts[0] for p in CONFIGS.rglob("*.yaml")}
    assert found == {"models", "runs"}
