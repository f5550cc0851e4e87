"""A `kit` that has imported torch already: one process which forks for every command that the documentation runs.

`python -m tests.docs.warm SOCKET` listens. The script that `shim` writes stands in for the installed `kit`: it hands
its arguments, folder, environment and streams to that process and leaves with the exit code it is told. Nothing of the
command line is replaced; only the wait for the imports is saved, a hundred times.
"""

import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path

SHORT = [f"--set={s}" for s in ("train.steps=1", "data.max_mb=0.02", "evaluate.batches=1", "sample=null")]
_SHIM = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(line, [len(told).to_bytes(8, "big")], [0, 1, 2])
    line.sendall(told)
    sys.exit(int(line.recv(8) or b"70"))
"""


def shim(folder: Path, address: Path) -> None:
    """Write `kit` into `folder`, as a script that asks the process which listens at `address`."""
    script = folder / "kit"
    script.write_text(_SHIM.format(python=sys.executable, address=str(address)), "utf-8")
    script.chmod(0o755)


def serve(address: Path) -> None:
    """Answer commands until killed."""
    from registry import plugins

    with (
        tempfile.TemporaryDirectory() as folder
    ):  # one short run and one export import whatever any command will import
        _run(["train", "quickstart", "--out", f"{folder}/run", *SHORT])
        _run(["export", f"{folder}/run", f"{folder}/exported"])
    plugins.all_entries.cache_clear()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        draft = address.with_suffix(".draft")
        door.bind(str(draft))
        door.listen()
        draft.rename(address)
        while True:
            line, _ = door.accept()
            if os.fork() == 0:
                door.close()
                _answer(line)
            line.close()


def _answer(line: socket.socket) -> None:
    """Be the command that `line` asks for, tell it the exit code, and leave."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(line, 8, 3)
    arguments, folder, environment = json.loads(_exactly(line, int.from_bytes(length, "big")))
    for own, given in enumerate(streams):
        os.dup2(given, own)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115 - until exit
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path += [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    code = _run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    line.sendall(str(code).encode())
    os._exit(0)


def _run(arguments: list[str]) -> int:
    from transformer_kit.cli.main import main

    sys.argv = ["kit", *arguments]
    try:
        main(arguments)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _exactly(line: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        received += line.recv(length - len(received))
    return received


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
