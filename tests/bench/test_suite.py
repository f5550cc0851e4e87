"""The spec of performance: measured whole, or a table of it anew."""

from pathlib import Path

import pytest

from tests.benchmarks.suite import _page, _put
from transformer_kit.bench.run import Result, Row


def _result(seq: int, machine: str = "a machine", median: float = 1.0) -> Result:
    rows = [Row("transformer_kit", 10, median, median, 1, 1, 5, 0.5)]
    return Result("prefill", "a-spec", machine, "cpu", "float32", 2, 1, seq, None, 3, 1e9, 1e9, 0.5, rows, {"x": "no"})


def test_a_table_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    page, before = tmp_path / "page.md", [_result(8), _result(16), _result(32)]
    for place, anew in enumerate([_result(8, median=2), _result(64), _result(32, median=3)]):
        page.write_text("\n".join(_page(before)), "utf-8")
        _put(page, anew, place, 3)
        assert page.read_text("utf-8") == "\n".join(_page([*before[:place], anew, *before[place + 1 :]]))


def test_a_page_is_not_put_together_from_two_machines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    whole = "\n".join(_page([_result(8), _result(16)]))
    page.write_text(whole, "utf-8")
    for anew, count in ((_result(8, machine="another"), 2), (_result(8), 3)):
        with pytest.raises(SystemExit, match="measure all"):
            _put(page, anew, 0, count)
    assert page.read_text("utf-8") == whole
