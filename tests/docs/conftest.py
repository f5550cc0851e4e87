"""What the documentation's blocks run in."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import warm
from tests.docs.blocks import ROOT


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """Environment for shell blocks: `kit` is warm, `python` is this one, and finds the checkout."""
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:  # short: a socket's path may have 107 characters
        address, bin = Path(folder, "door"), Path(folder, "bin")
        bin.mkdir()
        warm.shim(bin, address)
        found = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "120", "XDG_CACHE_HOME": folder}
        found |= {"PATH": f"{bin}:{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": folder}
        found |= {"PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "MPLBACKEND": "agg"}
        found |= {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1"}
        found |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        command = [sys.executable, "-m", "tests.docs.warm", str(address)]
        server = subprocess.Popen(command, cwd=ROOT, env=os.environ | found, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 120
            while not address.exists():
                assert server.poll() is None, "the warm kit does not start"
                assert time.monotonic() < deadline, "the warm kit does not answer"
                time.sleep(0.05)
            yield found
        finally:
            server.kill()
            server.wait()
