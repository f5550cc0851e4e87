"""Every shipped spec reads and assembles; the published models have the published number of parameters."""

from pathlib import Path

import pytest

from transformer_kit.model.build import assemble, assemble_distinct
from transformer_kit.spec import files
from transformer_kit.spec.read import read

CONFIGS = Path(__file__).parents[1] / "configs"

# Counted from the published checkpoints.
PUBLISHED = {
    "gpt2-124m": 124_439_808,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-0.5b": 494_032_768,
    "gemma-2-2b": 2_614_341_888,
    "mpt-7b": 6_649_286_656,
    "pythia-160m": 162_322_944,
}


@pytest.mark.parametrize("name", [*files.names("models"), *files.names("runs")])
def test_assembles(name: str) -> None:
    model, _ = assemble_distinct(read(name))
    assert all(p.device.type == "meta" for p in model.parameters())


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_equal_the_published_count(name: str, published: int) -> None:
    assert sum(p.numel() for p in assemble(read(name)).parameters()) == published


def test_every_config_file_is_a_model_or_a_run() -> None:
    found = {p.relative_to(CONFIGS).parts[0] for p in CONFIGS.rglob("*.yaml")}
    assert found == {"models", "runs"}
