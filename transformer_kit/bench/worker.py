"""A candidate in a process of its own, which runs a round on request, so that memory is not shared.

    python -m transformer_kit.bench.worker '{"candidate": ..., "spec": ..., "setting": {...}, ...}'

It prints the number of parameters. Then it reads a round number from each line, runs that round, and answers with its
seconds and the peak of its memory so far in bytes. Answers are lines of JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, Self

import torch

from transformer_kit import seeds
from transformer_kit.bench.candidate import Candidate
from transformer_kit.bench.peers import INT8, KIT, LEAN, candidate, parameters
from transformer_kit.bench.shape import NoPeer
from transformer_kit.bench.work import WORK, Setting
from transformer_kit.spec.read import read
from transformer_kit.train.allocator import keep_freed

STATUS = Path("/proc/self/status")
"""Where Linux reports the memory of a process."""
LAST = 2000
"""Characters of a dead process's last output."""


class Task(NamedTuple):
    """The job of a process."""

    candidate: str
    work: str
    spec: str
    sets: Sequence[str]
    setting: Setting
    threads: int

    def line(self) -> str:
        """As JSON."""
        setting = {**vars(self.setting), "device": str(self.setting.device), "dtype": str(self.setting.dtype)}
        return json.dumps({**self._asdict(), "setting": setting})

    @classmethod
    def parse(cls, line: str) -> Self:
        """From `line`."""
        found = json.loads(line)
        setting = found["setting"]
        device, dtype = torch.device(setting["device"]), getattr(torch, setting["dtype"].removeprefix("torch."))
        return cls(**{**found, "setting": Setting(**{**setting, "device": device, "dtype": dtype})})


class Worker:
    """A candidate's process, from outside. It starts at once; `parameters` waits until it is ready."""

    def __init__(self, task: Task, environment: Mapping[str, str] | None = None) -> None:
        """`environment` holds variables in addition to those of this process."""
        self.name = task.candidate
        self.peak = 0
        """Peak bytes of the process so far, without those of libraries."""
        self._words = TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
        command = [sys.executable, "-m", __name__, task.line()]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env=os.environ | (environment or {}),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._words.close()

    def parameters(self) -> int:
        """Distinct parameters, once it is ready; call this first. Raises NoPeer; ChildProcessError when it died."""
        answer = self._answer()
        if "absent" in answer:
            raise NoPeer(answer["absent"])
        return int(answer["parameters"])

    def turn(self, turn: int) -> float:
        """Run a round and return its seconds. ChildProcessError when the process dies."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # a dead process does not answer either; its exit says why
            self._process.stdin.write(f"{turn}\n")
            self._process.stdin.flush()
        answer = self._answer()
        self.peak = answer["peak"]
        return float(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._words.seek(0)
            last = (self._words.read()[-LAST:].strip().splitlines() or [f"exit code {code}"])[-1]
            raise ChildProcessError(f"{self.name}: its process died: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _serve(task: Task) -> None:
    """Answer on a separate stream, since libraries may print to standard output."""
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        torch.set_num_threads(task.threads)
        try:
            chosen = _made(task)
        except NoPeer as error:
            answers.write(json.dumps({"absent": str(error)}) + "\n")
            return
        answers.write(json.dumps({"parameters": parameters(chosen.module)}) + "\n")
        _load_optimizer()
        device = task.setting.device
        before = _held(device, peak=False) - sum(p.nbytes for p in chosen.module.parameters())
        timed = WORK[task.work](chosen, task.setting)
        for turn in sys.stdin:
            seconds = timed(int(turn))
            answers.write(json.dumps({"seconds": seconds, "peak": _held(device, peak=True) - before}) + "\n")


def _made(task: Task) -> Candidate:
    """The candidate on its device. The kit's trains as `kit train` does, which keeps freed memory."""
    asked = task.setting
    if task.candidate == INT8:
        if task.work == "train" or asked.device.type != "cpu" or asked.compile:
            raise NoPeer("is for prompts and decoding on a CPU, not compiled")
        if asked.dtype not in (torch.float32, torch.bfloat16):
            raise NoPeer("takes models in float32 or bfloat16")
    if task.candidate == LEAN and task.work != "train":
        raise NoPeer("saves memory in training, and does nothing else")
    if task.candidate in (KIT, LEAN) and task.work == "train":
        keep_freed(task.setting.device)
    with seeds.scope(0, "bench"), task.setting.device:
        return candidate(task.candidate, read(task.spec, list(task.sets)))


def _load_optimizer() -> None:
    """Import the modules that torch imports with its first optimizer, so that they count for no candidate."""
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)], fused=True).step()


def _held(device: torch.device, *, peak: bool) -> int:
    """Bytes of memory in use, now or at the peak; 0 where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    field = "VmHWM:" if peak else "VmRSS:"
    lines = STATUS.read_text("ascii").splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


if __name__ == "__main__":
    _serve(Task.parse(sys.argv[1]))
