"""Peak memory of a training step: each candidate in a process of its own, so that none pays for another.

    python -m transformer_kit.bench.memory '{"candidate": ..., "spec": ..., ...}'

prints the bytes that the process held at most beyond what libraries take: weights, and all that came after them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from transformer_kit.bench.peers import candidate, parameters
from transformer_kit.bench.shape import NoPeer
from transformer_kit.bench.work import Setting, train
from transformer_kit.spec.read import read

PROMPT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
"""Settings of the C library by which memory that is freed is given back at once: what is held is what is in use."""
STEPS = 2
"""The second step holds what the optimizer made in the first."""


def measured(name: str, spec: str, sets: list[str], setting: Setting, threads: int) -> dict[str, int]:
    """`{"peak": bytes, "parameters": count}` of a candidate. Raises NoPeer, or RuntimeError when its process dies."""
    asked = {"candidate": name, "spec": spec, "sets": sets, "threads": threads, "batch": setting.batch}
    asked |= {"seq": setting.seq, "device": str(setting.device), "dtype": str(setting.dtype).removeprefix("torch.")}
    command = [sys.executable, "-m", "transformer_kit.bench.memory", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | PROMPT)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"{name}: the process that measures its memory died: {last}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "absent" in answer:
        raise NoPeer(answer["absent"])
    return {"peak": answer["peak"], "parameters": answer["parameters"]}


def _child(asked: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(asked["threads"])
    device, dtype = torch.device(asked["device"]), getattr(torch, asked["dtype"])
    setting = Setting(asked["batch"], asked["seq"], 0, device, dtype, STEPS)
    page = read(asked["spec"], asked["sets"])
    try:
        chosen = candidate(asked["candidate"], page)
    except NoPeer as error:
        return {"absent": str(error)}
    _load_optimizer()
    before = _held(device, peak=False) - sum(p.nbytes for p in chosen.module.parameters())
    step = train(chosen, setting)
    for turn in range(STEPS):
        step(turn)
    return {"peak": _held(device, peak=True) - before, "parameters": parameters(chosen.module)}


def _load_optimizer() -> None:
    """What torch imports with its first optimizer is large, and nobody's."""
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)], fused=True).step()


def _held(device: torch.device, *, peak: bool) -> int:
    """Bytes of memory in use, now or at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_child(json.loads(sys.argv[1]))) + "\n")
