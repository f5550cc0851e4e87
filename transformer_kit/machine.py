"""What this machine can do at best: multiplications and bytes read per second, its memory, and its name for reports.

    matmul_peak("cpu", torch.float32), read_bandwidth("cpu"), name()

Figures are of this moment: a busy machine measures low.
"""

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from transformer_kit.transform.onednn_linear import linear, takes

BUDGET = 0.4
"""Seconds that a measurement may take, roughly."""
LARGEST = 8192
"""Rows of the largest matrices that are multiplied."""
READ = 1024**3
"""Bytes read to measure bandwidth, where a quarter of the free memory is as much: more than most caches hold by so much
that what they hold does not show. Of 256 MiB read again and again 32 MiB of cache gave an eighth, and memory seemed
15 % faster than it is."""

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def matmul_peak(device: str | torch.device, dtype: torch.dtype, budget: float = BUDGET) -> float:
    """FLOP/s of the fastest of some square multiplications of `dtype` on `device`, in about `budget` seconds.

    Sizes grow from tiny ones, so that hardware which multiplies a type very slowly is found out quickly.
    """
    best, size, before, begin = 0.0, 64, None, time.perf_counter()
    while size <= LARGEST:
        draw = torch.Generator(device).manual_seed(size)  # its own, so that measuring changes nothing elsewhere
        x = torch.randn(size, size, device=device, generator=draw).to(dtype)  # equal numbers may be multiplied faster
        ways = _ways(x)
        seconds = min(_fastest(multiply, x.device, budget / 4 / len(ways)) for multiply in ways)
        best = max(best, 2 * size**3 / seconds)
        # Small sizes may take no time, or, on a busy machine, the time of waiting for each other: growth tells.
        growth = 1.0 if before is None else min(seconds / before, 8.0)
        if time.perf_counter() - begin + 2 * growth * seconds > budget:
            break
        size, before = 2 * size, seconds
    return best


def _ways(x: torch.Tensor) -> list[Callable[[], object]]:
    """How x may be multiplied by itself: as torch does, and as the kit's layers do where that is another way."""
    ways: list[Callable[[], object]] = [partial(torch.mm, x, x, out=torch.empty_like(x))]
    return [*ways, partial(linear, x, x)] if takes(x, x) else ways


def read_bandwidth(device: str | torch.device) -> float:
    """Bytes per second that are read from memory, by a large float32 matrix's product with a vector or by its sum.

    Which of them reads faster depends on the machine, and the faster one is counted.
    """
    device = torch.device(device)
    size = READ if device.type == "cpu" else 4 * READ  # long enough to hide how it begins
    free = free_memory(device)
    size = size if free is None else min(size, free // 4)
    matrix = torch.ones(size // (4 * 4096), 4096, device=device)
    vector, out = torch.ones(4096, device=device), torch.empty(len(matrix), device=device)
    ways = (partial(torch.mv, matrix, vector, out=out), matrix.sum)
    return matrix.nbytes / min(_fastest(read, matrix.device, BUDGET / 2) for read in ways)


def name(device: str | torch.device = "cpu") -> str:
    """The processor and torch's threads, such as `AMD EPYC 7763, 2 threads`, or the name of an accelerator."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'' if threads == 1 else 's'}"


def memory() -> dict[str, int | None]:
    """Bytes of the machine's memory, and what a control group grants of them; None where the system does not tell."""
    fields = dict(pairs(read(PROC / "meminfo")))
    total, free = (int(fields[k].split()[0]) * 1024 if k in fields else None for k in ("MemTotal", "MemAvailable"))
    limit = read(CGROUP / "memory.max").strip()
    return {"total": total, "free": free, "limit of the container": int(limit) if limit.isdigit() else None}


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process can still have on `device`, at most, swapping included; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    found = memory()
    if found["free"] is None:
        return None
    swap = int(dict(pairs(read(PROC / "meminfo"))).get("SwapFree", "0 kB").split()[0]) * 1024
    return min(found["free"] + swap, found["limit of the container"] or found["free"] + swap)


def read(path: Path) -> str:
    """The text of a file of the system's; nothing where there is none."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """Lines of the form `name: value`."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def busy(device: torch.device) -> str | None:
    """Who else computes here at this moment, where that keeps torch's threads waiting; None where nobody is known."""
    if device.type != "cpu":
        return None
    counted = sorted(_others() for _ in range(5))
    cores, others = os.cpu_count() or 1, counted[2]
    return (
        f"{others} threads of other programs ran on {cores} cores" if others + torch.get_num_threads() > cores else None
    )


def _others() -> int:
    """Threads of other programs that run or wait for a core; 0 where the system does not tell."""
    found = re.search(r"^procs_running (\d+)$", read(PROC / "stat"), re.MULTILINE)
    own = [read(path / "stat") for path in (PROC / "self/task").glob("*")]
    time.sleep(0.001)
    return max(0, int(found[1]) - sum(text.rpartition(")")[2].startswith(" R") for text in own)) if found else 0


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", read(PROC / "cpuinfo"), re.MULTILINE)
    if found:
        return found[1].strip()
    return _brand() or platform.processor() or platform.machine() or "unknown processor"


def _brand() -> str:
    """The processor's full name on macOS, where Python alone knows `arm`; empty elsewhere."""
    if platform.system() != "Darwin":
        return ""
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _fastest(work: Callable[[], object], device: torch.device, limit: float) -> float:
    """Seconds of the fastest of a few rounds of `work`, no more of them begun once `limit` seconds have passed.

    On an accelerator a round does it many times, to hide the waiting.
    """
    times = 1 if device.type == "cpu" else 16
    begin = time.perf_counter()
    best = _timed(work, device, 1)  # the first call loads kernels and touches memory
    for _ in range(5):
        if time.perf_counter() - begin > limit:
            break
        best = min(best, _timed(work, device, times) / times)
    return best


def _timed(work: Callable[[], object], device: torch.device, times: int) -> float:
    _wait(device)
    begin = time.perf_counter()
    for _ in range(times):
        work()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
