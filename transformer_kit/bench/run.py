"""One complete comparison: candidates, machine, rounds, ratios."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch

from transformer_kit import machine
from transformer_kit.bench.limit import Demand, demand
from transformer_kit.bench.peers import KIT, PEERS, undropped
from transformer_kit.bench.shape import NoPeer
from transformer_kit.bench.timing import interleaved, middle
from transformer_kit.bench.work import Setting
from transformer_kit.bench.worker import STATUS, Task, Worker
from transformer_kit.spec.read import read

PROMPT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
"""Settings of the C library that return freed memory at once, so that held memory is memory in use."""
STEPS = 2
"""Steps whose memory is measured: in the second, the optimizer's state exists."""


@dataclass
class Row:
    """Measurements of a candidate."""

    name: str
    parameters: int
    median: float
    """Seconds of a round, or bytes of memory."""
    minimum: float
    ratio: float
    """The kit's median divided by this one's: below 1 the kit is faster, or smaller."""
    ratio_of_minima: float
    tokens_per_second: float | None
    share: float | None
    """Share of the machine's limit: median over the rounds of the least possible time divided by the measured time."""


@dataclass
class Result:
    """A comparison."""

    work: str
    spec: str
    machine: str
    device: str
    dtype: str
    threads: int
    batch: int
    seq: int
    new: int | None
    rounds: int
    peak_flops: float | None
    bandwidth: float | None
    limit: float | None
    """Least seconds of a round on this machine, at the median of its measured speeds."""
    rows: list[Row]
    absent: dict[str, str] = field(default_factory=dict)
    """Peers that were not measured, with reasons."""

    def data(self) -> dict[str, Any]:
        """The result as mappings and lists."""
        return asdict(self)


def compare(
    work: str, spec: str, sets: Sequence[str], setting: Setting, against: Sequence[str], threads: int | None = None
) -> Result:
    """Compare the kit's model of `spec` with the peers in `against`. Raises ValueError for an unknown peer."""
    unknown = [name for name in against if name not in PEERS]
    longest = read(spec, list(sets)).model.max_seq_len
    length = setting.seq + (setting.new + 1 if work == "decode" else 0)
    if length > longest:
        raise ValueError(f"the model takes at most {longest} tokens, got {length}; choose a smaller --seq or --new")
    if unknown:
        raise ValueError(f"no peer '{unknown[0]}'; there are {', '.join(PEERS)}")
    before = torch.get_num_threads()
    threads = before if threads is None else threads
    torch.set_num_threads(threads)
    try:
        if work == "memory":
            return _memory(spec, list(sets), setting, against, threads)
        return _timed(work, spec, list(sets), setting, against, threads)
    finally:
        torch.set_num_threads(before)


def _timed(work: str, spec: str, sets: list[str], setting: Setting, against: Sequence[str], threads: int) -> Result:
    needed = demand(work, undropped(read(spec, sets)), setting)
    capacity = _Capacity(setting)
    tasks = [Task(name, work, spec, sets, setting, threads) for name in (KIT, *against)]
    measure = _in_turns if setting.device.type == "cpu" else _one_by_one
    found = measure(tasks, setting.rounds, capacity)
    limits = {name: [needed.seconds(*speeds) for speeds in found.speeds[name]] for name in found.speeds}
    rows = [_row(name, size, found.values, needed, limits[name]) for name, size in found.parameters.items()]
    peak, bandwidth = map(middle, zip(*capacity.speeds, strict=True))
    least = middle([needed.seconds(*speeds) for speeds in capacity.speeds])
    return _result(work, spec, setting, threads, rows, found.absent, (peak, bandwidth, least))


class _Capacity:
    """Speed of the machine, measured before each round, since it may change from minute to minute."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.speeds: list[tuple[float, float]] = []
        """FLOP/s, and bytes read per second, of each round."""

    def measure(self, turn: int) -> None:
        """Measure before the round of this number."""
        if turn < 0:
            return
        peak = machine.matmul_peak(self.setting.device, self.setting.dtype)
        self.speeds.append((peak, machine.read_bandwidth(self.setting.device)))
        if self.setting.device.type == "cuda":
            torch.cuda.empty_cache()  # candidates have the device to themselves


class _Measured(NamedTuple):
    """Measurements by candidate name."""

    values: dict[str, list[float]]
    """Seconds of the rounds, or bytes."""
    parameters: dict[str, int]
    absent: dict[str, str]
    speeds: dict[str, list[tuple[float, float]]]
    """Machine speed before each of the rounds."""


def _in_turns(tasks: Sequence[Task], rounds: int, capacity: _Capacity) -> _Measured:
    """All processes exist at the same time, and work one at a time."""
    counts, absent, ready = {}, {}, {}
    with ExitStack() as stack:
        for worker in [stack.enter_context(Worker(task)) for task in tasks]:
            try:
                counts[worker.name] = worker.parameters()
                ready[worker.name] = worker.turn
            except NoPeer as error:
                absent[worker.name] = str(error)
        begin = len(capacity.speeds)
        values = interleaved(ready, rounds, before=capacity.measure) if ready else {}
        return _Measured(values, counts, absent, dict.fromkeys(ready, capacity.speeds[begin:]))


def _one_by_one(tasks: Sequence[Task], rounds: int, capacity: _Capacity) -> _Measured:
    """Each process starts after the one before has ended: a device stays idle, and has memory for one alone."""
    found = _Measured({}, {}, {}, {})
    for task in tasks:
        one = _in_turns([task], rounds, capacity)
        found.values.update(one.values)
        found.parameters.update(one.parameters)
        found.absent.update(one.absent)
        found.speeds.update(one.speeds)
    return found


def _memory(spec: str, sets: list[str], setting: Setting, against: Sequence[str], threads: int) -> Result:
    if setting.device.type == "cpu" and not STATUS.exists():
        raise OSError(f"how much memory a process takes is read from {STATUS}, which this system does not have")
    found = _Measured({}, {}, {}, {})
    for name in (KIT, *against):
        with Worker(Task(name, "train", spec, sets, setting, threads), PROMPT) as worker:
            try:
                found.parameters[name] = worker.parameters()
            except NoPeer as error:
                found.absent[name] = str(error)
                continue
            for turn in range(STEPS):
                worker.turn(turn)
            found.values[name] = [float(worker.peak)]
    rows = [_row(name, size, found.values, None, []) for name, size in found.parameters.items()]
    return _result("memory", spec, setting, threads, rows, found.absent, (None, None, None))


def _row(name: str, size: int, seconds: dict[str, list[float]], needed: Demand | None, limits: Sequence[float]) -> Row:
    """`limits` are those of the rounds, so that changes of machine speed affect both alike."""
    own, kit = seconds[name], seconds[KIT]
    median = middle(own)
    return Row(
        name=name,
        parameters=size,
        median=median,
        minimum=min(own),
        ratio=middle(kit) / median,
        ratio_of_minima=min(kit) / min(own),
        tokens_per_second=None if needed is None else needed.tokens / median,
        share=middle([limit / taken for limit, taken in zip(limits, own, strict=True)]) if limits else None,
    )


def _result(
    work: str,
    spec: str,
    setting: Setting,
    threads: int,
    rows: list[Row],
    absent: dict[str, str],
    limits: tuple[float | None, float | None, float | None],
) -> Result:
    return Result(
        work=work,
        spec=spec,
        machine=machine.name(setting.device),
        device=str(setting.device),
        dtype=str(setting.dtype).removeprefix("torch."),
        threads=threads,
        batch=setting.batch,
        seq=setting.seq,
        new=setting.new if work == "decode" else None,
        rounds=setting.rounds,
        peak_flops=limits[0],
        bandwidth=limits[1],
        limit=limits[2],
        rows=rows,
        absent=absent,
    )
