"""Where the cache lies: each way to say so, in its order."""

from pathlib import Path

import pytest

from transformer_kit.cli.failures import ENVIRONMENT, failure
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
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache_folder() == tmp_path / ".cache/transformer_kit"


def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwd = pytest.importorskip("pwd")

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in (VARIABLE, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OSError, match=f"no home folder.*; set {VARIABLE} to a folder") as caught:
        cache_folder()
    told = failure(caught.value)
    assert told is not None
    assert told.code == ENVIRONMENT
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder(Path("~no-such-user/x")) == Path("~no-such-user/x")
