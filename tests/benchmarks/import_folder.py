"""Time and memory of `kit import` against copying the files: `python -m tests.benchmarks.import_folder --gib 2`.

A folder like Llama's is made, in shards, then copied and imported in turn, so that a busy disk slows both; the ratio of
medians is what counts. Both bring what they write to disk, and both run in a process of their own, timed once torch and
the kit are loaded: memory that was freed some seconds before is slow to get in a virtual machine, and equally for both.
`command_s` is an import with the loading. Its memory is what it holds for itself beyond that (RssAnon,
sampled): specs of mapped files are the system's, which takes them back when it needs them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Thread

import torch
from safetensors.torch import save_file
from torch import Tensor

D, F, V, HEADS, GROUPS = 2048, 5632, 32000, 32, 8
SHARD = 512 * 2**20
MIB = 2**20
EVERY = 0.002
"""Seconds between two looks at the memory."""


def make(folder: Path, gib: float, dtype: torch.dtype) -> int:
    """Write the folder; the bytes of its weights."""
    folder.mkdir()
    layer = {
        "self_attn.q_proj": (D, D), "self_attn.k_proj": (D // HEADS * GROUPS, D),
        "self_attn.v_proj": (D // HEADS * GROUPS, D), "self_attn.o_proj": (D, D),
        "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F),
        "input_layernorm": (D,), "post_attention_layernorm": (D,),
    }  # fmt: skip
    ends = {"model.embed_tokens": (V, D), "model.norm": (D,), "lm_head": (V, D)}
    size = {what: sum(torch.Size(s).numel() for s in shapes.values()) for what, shapes in (("l", layer), ("e", ends))}
    layers = max(1, round((gib * 2**30 / dtype.itemsize - size["e"]) / size["l"]))
    shapes = ends | {f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": V, "hidden_size": D,
        "intermediate_size": F, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": str(dtype).removeprefix("torch."),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return _write(folder, {f"{name}.weight": shape for name, shape in shapes.items()}, dtype)


def _write(folder: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> int:
    noise = torch.randn(V * D).to(dtype)
    where: dict[str, str] = {}
    held: dict[str, Tensor] = {}
    total = shard = 0
    for i, (name, shape) in enumerate(shapes.items()):
        held[name] = noise[: torch.Size(shape).numel()].view(shape).clone()
        total += held[name].nbytes
        if sum(t.nbytes for t in held.values()) >= SHARD or i == len(shapes) - 1:
            file = f"model-{shard}.safetensors"
            save_file(held, folder / file, metadata={"format": "pt"})
            where |= dict.fromkeys(held, file)
            held, shard = {}, shard + 1
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def copied(source: Path, out: Path) -> float:
    """Seconds to copy the files and bring them to disk, in a process of its own."""
    return float(_child("--copy", source, out)[0])


def one_copy(source: Path, out: Path) -> tuple[float, float]:
    """Seconds of a copy in this process, and no memory of its own."""
    import transformer_kit.convert.importing  # noqa: F401 - as an import has before it begins

    begin = time.perf_counter()
    out.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, out / path.name)
        with (out / path.name).open("rb+") as file:
            os.fsync(file.fileno())
    return time.perf_counter() - begin, 0.0


def imported(source: Path, out: Path) -> tuple[float, float, float]:
    """Seconds of the import, seconds of its whole process, and MiB that it held at most."""
    begin = time.perf_counter()
    taken, peak = _child("--import", source, out)
    return taken, time.perf_counter() - begin, peak


def _child(what: str, source: Path, out: Path) -> tuple[float, float]:
    command = [sys.executable, "-m", "tests.benchmarks.import_folder", what, str(source), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    taken, peak = json.loads(done.stdout)
    return taken, peak


def one_import(source: Path, out: Path) -> tuple[float, float]:
    """Seconds and MiB of an import in this process."""
    from transformer_kit.convert.importing import import_folder

    held, done = [own_memory()], Event()

    def watch() -> None:
        while not done.wait(EVERY):
            held.append(own_memory())

    watcher = Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    import_folder(source, out)
    taken = time.perf_counter() - begin
    done.set()
    watcher.join()
    return taken, (max(held) - held[0]) / MIB


def own_memory() -> int:
    """Bytes in memory of this process alone that belong to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("needs Linux, whose /proc/self/status has RssAnon")


def compared(gib: float, dtype: torch.dtype, rounds: int, place: str | None) -> dict[str, object]:
    """Copies and imports in turn."""
    with tempfile.TemporaryDirectory(dir=place) as base:
        source, out = Path(base) / "hf", Path(base) / "out"
        size = make(source, gib, dtype)
        copies, imports = [], []
        for _ in range(rounds):
            copies.append(copied(source, out))
            shutil.rmtree(out)
            imports.append(imported(source, out))
            shutil.rmtree(out)
    copy, taken = statistics.median(copies), statistics.median(i[0] for i in imports)
    return {
        "gib": round(size / 2**30, 2),
        "dtype": str(dtype).removeprefix("torch."),
        "copy_s": round(copy, 2),
        "import_s": round(taken, 2),
        "command_s": round(statistics.median(i[1] for i in imports), 2),
        "speed_of_copying": round(copy / taken, 2),
        "peak_mib": round(max(i[2] for i in imports)),
        "all_copy_s": [round(s, 2) for s in copies],
        "all_import_s": [round(i[0], 2) for i in imports],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--place", help="Folder for the files; about three times --gib is needed.")
    parser.add_argument("--import", dest="imports", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--copy", dest="copies", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.imports or args.copies:
        print(json.dumps(one_import(*args.imports) if args.imports else one_copy(*args.copies)))
        return
    print(json.dumps(compared(args.gib, getattr(torch, args.dtype), args.rounds, args.place), indent=2))


if __name__ == "__main__":
    main()
