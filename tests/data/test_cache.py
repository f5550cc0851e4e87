"""Where the cache lies: each way to say so, in its order."""

from pathlib import Path

import pytest

from transformer_kit.data.cache import VARIABLE, cache_folder


def test_what_is_nearest_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/transformer_kit"
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # as good as not set
    assert cache_folder() == tmp_path / ".cache/transformer_kit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/transformer_kit"
    monkeypatch.setenv(VARIABLE, "~/mine")
    assert cache_folder() == tmp_path / "mine"
    assert cache_folder(Path("~/given")) == tmp_path / "given"
