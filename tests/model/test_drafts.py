"""Drafts of folders: after a kill the next start takes away what was left, and never what another process writes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from transformer_kit.model.drafts import draft_of

HOLD = """
import sys, time
from pathlib import Path
from transformer_kit.model.drafts import draft_of
with draft_of(Path(sys.argv[1])) as draft:
    (draft / "half").write_text("x")
    print(draft, flush=True)
    time.sleep(60)
"""


def test_what_a_kill_leaves_goes_at_the_next_start(tmp_path: Path) -> None:
    target = tmp_path / "out[1]"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    (tmp_path / ".out[1].mine").mkdir()
    with draft_of(target) as draft:
        assert {p.name for p in tmp_path.iterdir()} == {left.name, draft.name, ".out[1].mine"}
        os.rename(draft, target)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert (left / "half").exists()
    with draft_of(target) as draft:
        assert {p.name for p in tmp_path.iterdir()} == {"out[1]", draft.name, ".out[1].mine"}
