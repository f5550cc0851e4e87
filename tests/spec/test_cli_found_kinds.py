"""Found from the command line: kinds that have no block to be laid on."""

from pathlib import Path

import pytest

from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read


@pytest.mark.parametrize("block", ["", "    block: null\n", "    block: pre_norm\n"])
@pytest.mark.parametrize("kind", ["mixer: {window: 8}", "type: pre_norm"])
def test_kinds_without_a_block_are_a_mistake_not_a_fault(tmp_path: Path, block: str, kind: str) -> None:
    page = tmp_path / "page.yaml"
    layers = f"  layers:\n    count: 1\n{block}    kinds: {{local: {{{kind}}}}}\n    pattern: [local]\n"
    page.write_text(f"model:\n  vocab_size: 8\n  d_model: 8\n  max_seq_len: 8\n{layers}")
    with pytest.raises(SpecError, match="block") as caught:
        read(page)
    assert "replaces the type" not in str(caught.value)
