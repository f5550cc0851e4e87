"""Tiny reference models of the published families, built by `transformers` and initialized so that everything counts.

The initializers of `transformers` leave norms at 1, biases at 0 and matrices at 0.02: logits near zero, with which a
wrong model passes. Here every parameter and every learned buffer gets noise of gain about one.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DATA = Path(__file__).parent / "data"
SEED = 1234
LEARNED_BUFFERS = ("e_score_correction_bias", "expert_bias", "final_logits_bias", "layer_scalar")


@cache
def configurations() -> dict[str, dict[str, Any]]:
    """Tiny configurations by name."""
    found: dict[str, dict[str, Any]] = json.loads((DATA / "tiny_configs.json").read_text())
    return found


def reference(name: str, **changes: Any) -> nn.Module:
    """The reference model, in eval mode and float32, always with the same weights; `changes` are of its config."""
    import transformers

    entry = configurations()[name]
    config = getattr(transformers, entry["config_class"])(**json.loads(json.dumps({**entry["config"], **changes})))
    attention = entry.get("reference_attn", "eager")
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        kind = getattr(transformers, entry["model_class"])
        model = kind._from_config(config, attn_implementation=attention, dtype=torch.float32)
    return strong(model.float().eval())


def strong(model: nn.Module) -> nn.Module:
    """Noise on everything, by name, so that it does not depend on the order in which modules are built."""
    generator = torch.Generator().manual_seed(SEED)
    fixed = {f"{n}.{k}" for n, m in model.named_modules() if "Sinusoidal" in type(m).__name__ for k in m._parameters}
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name not in fixed:
                parameter.copy_(_drawn(name, parameter, noise).to(parameter.dtype))
        for name, buffer in sorted(model.named_buffers()):
            if name.rsplit(".", 1)[-1] in LEARNED_BUFFERS:
                buffer.add_((0.1 * torch.randn(buffer.shape, generator=generator)).to(buffer.dtype))
    return model


def _drawn(name: str, parameter: Tensor, noise: Tensor) -> Tensor:
    if parameter.ndim <= 1:
        return torch.nan_to_num(parameter.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp(-3, 3) + 0.2 * noise
    if "embed" in name.lower() or any(t in f".{name}" for t in (".wte.", ".wpe.", ".shared.")):
        return 0.7 * noise
    return noise / math.sqrt(parameter.shape[-1])


def tokens(name: str, batch: int = 2, length: int | None = None) -> Tensor:
    """Token ids (B, T) that leave out the special ones."""
    entry = configurations()[name]
    high = entry.get("vocab") or entry["config"]["vocab_size"]
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(entry.get("id_low", 4), high, (batch, length or entry.get("seq", 16)), generator=generator)
