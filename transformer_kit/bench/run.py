"""One comparison from beginning to end: candidates, machine, rounds, ratios."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from transformer_kit import machine
from transformer_kit.bench import memory
from transformer_kit.bench.limit import Demand, demand
from transformer_kit.bench.peers import KIT, PEERS, candidate, parameters, undropped
from transformer_kit.bench.shape import NoPeer
from transformer_kit.bench.timing import interleaved, middle
from transformer_kit.bench.work import WORK, Setting
from transformer_kit.spec.read import read

KINDS = (*WORK, "memory")


@dataclass
class Row:
    """What was measured of a candidate."""

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
    """Of the machine's limit: the least possible time divided by the median."""


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
    """Seconds that a round takes at least on this machine."""
    rows: list[Row]
    absent: dict[str, str] = field(default_factory=dict)
    """Peers that were not measured, and why."""

    def data(self) -> dict[str, Any]:
        """As mappings and lists."""
        return asdict(self)


def compare(
    work: str, spec: str, sets: Sequence[str], setting: Setting, against: Sequence[str], threads: int | None = None
) -> Result:
    """Measure the kit's model of `spec` and the peers in `against`. Raises ValueError for a peer that is not known."""
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
    page = undropped(read(spec, sets))
    found, absent = {}, {}
    for name in (KIT, *against):
        try:
            with setting.device:  # weights are made where they are measured
                found[name] = candidate(name, page)
        except NoPeer as error:
            absent[name] = str(error)
    needed = demand(work, page, setting)
    peak, bandwidth = _capacity(setting)
    seconds = interleaved({n: WORK[work](c, setting) for n, c in found.items()}, setting.rounds)
    again = _capacity(setting)
    peak, bandwidth = max(peak, again[0]), max(bandwidth, again[1])
    counts = {name: parameters(c.module) for name, c in found.items()}
    limit = needed.seconds(peak, bandwidth)
    rows = [_row(name, counts[name], seconds, needed, limit) for name in found]
    return _result(work, spec, setting, threads, rows, absent, (peak, bandwidth, limit))


def _memory(spec: str, sets: list[str], setting: Setting, against: Sequence[str], threads: int) -> Result:
    peaks: dict[str, list[float]] = {}
    counts, absent = {}, {}
    for name in (KIT, *against):
        try:
            found = memory.measured(name, spec, sets, setting, threads)
        except NoPeer as error:
            absent[name] = str(error)
            continue
        peaks[name], counts[name] = [float(found["peak"])], found["parameters"]
    rows = [_row(name, counts[name], peaks, None, None) for name in peaks]
    return _result("memory", spec, setting, threads, rows, absent, (None, None, None))


def _row(name: str, size: int, seconds: dict[str, list[float]], needed: Demand | None, limit: float | None) -> Row:
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
        share=None if limit is None else limit / median,
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


def _capacity(setting: Setting) -> tuple[float, float]:
    return machine.matmul_peak(setting.device, setting.dtype), machine.read_bandwidth(setting.device)
