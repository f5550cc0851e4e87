"""`make demo` does what the README says, with a training of two steps."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

SHORT = "--set train.steps=2 --set evaluate.batches=1 --set data.max_mb=0.05 --set sample.max_new_tokens=8"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_demo(environment: dict[str, str], tmp_path: Path) -> None:
    kit = tmp_path / "bin/kit"  # newer than what the installation depends on, so make installs nothing
    kit.parent.mkdir()
    kit.write_text(f'#!/bin/sh\n[ "$1" = train ] && set -- "$@" {SHORT}\nPATH=${{PATH#*:}}\nexec kit "$@"\n', "utf-8")
    kit.chmod(0o755)
    command = ["make", "demo", f"BIN={kit.parent}", f"RUN={tmp_path}/run"]
    path = f"{kit.parent}:{environment['PATH']}"
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "PATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("model", "loss.png", "metrics.jsonl"):
        assert f"{tmp_path}/run/{name}" in done.stdout
        assert (tmp_path / "run" / name).exists()
