"""`kit doctor` ends well whatever it finds."""

import pytest
import torch

from tests.cli.runner import Kit
from transformer_kit import machine


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures in no time."""
    monkeypatch.setattr(machine, "READ", 2**22)
    monkeypatch.setattr(machine, "LARGEST", 128)


def test_a_report_in_words_and_as_json(kit: Kit) -> None:
    told = kit("doctor")
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines()[-1].startswith("- ")
    found = kit("doctor", "--json").json()
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert found["speed"]["read"] > 1e6
    assert found["attention"]["math"] is True
    assert isinstance(found["advice"], list)
    for section in found:
        assert section == "advice" or section in told.out


def test_what_cannot_be_measured_is_left_open(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> float:
        raise RuntimeError("not implemented for this type")

    monkeypatch.setattr(machine, "matmul_peak", refuses)
    found = kit("doctor", "--json")
    assert found.code == 0
    assert found.json()["speed"]["float32"] is None
    assert kit("doctor").code == 0
