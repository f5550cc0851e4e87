"""Default sampling of a model, from its folder's generation_config.json, interpreted as transformers does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer_kit.data.token_ids import GENERATION, read_mapping
from transformer_kit.generate.choose import built

KEYS = {"temperature": "value", "top_k": "k", "top_p": "p", "min_p": "p"}
"""Keys with a sampler of the same name, in order, and the sampler's option."""
OFF: dict[str, float] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""The value at which a key has no effect."""
TOP_K = 50
"""The default of transformers where do_sample is true and top_k is missing."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (1.0,), "no_repeat_ngram_size": (0,), "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,), "num_beams": (1,), "length_penalty": (1.0,), "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,), "eta_cutoff": (0.0,), "min_length": (0,), "min_new_tokens": (0,), "bad_words_ids": (),
    "suppress_tokens": ([],), "begin_suppress_tokens": ([],), "forced_bos_token_id": (), "forced_eos_token_id": (),
    "sequence_bias": (), "exponential_decay_length_penalty": (), "stop_strings": ([],), "penalty_alpha": (0.0,),
    "guidance_scale": (1.0,), "num_beam_groups": (1,), "diversity_penalty": (0.0,), "top_h": (),
    "watermarking_config": (),
}  # fmt: skip
"""Keys that affect generation and are not supported, each with its neutral values; null is neutral too."""


@dataclass(frozen=True)
class Defaults:
    """Sampling settings of a folder."""

    sampling: Mapping[str, float] | None = None
    """Values of temperature, top_k, top_p and min_p; empty for greedy decoding, None without settings."""
    max_new_tokens: int | None = None
    not_applied: tuple[str, ...] = ()
    """Unsupported settings that would change the output, as `key: value`."""

    @property
    def samplers(self) -> list[dict[str, Any]]:
        """The samplers in the form of a spec."""
        return samplers(self.sampling or {})


def defaults(folder: Path | None) -> Defaults:
    """The settings of the model in `folder`; empty without generation_config.json. ValueError for wrong ones."""
    path = None if folder is None else folder / GENERATION
    if path is None or not path.is_file():
        return Defaults()
    page = read_mapping(path)
    count = page.get("max_new_tokens")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise ValueError(f"{path}: max_new_tokens must be a whole number, at least 1; got {count!r:.60}")
    sampled = page.get("do_sample") is True
    return Defaults(_sampling(page, path) if sampled else {}, count, _not_applied(page))


def samplers(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """The samplers for values of KEYS, in the form of a spec, in order."""
    return [{"type": key, option: values[key]} for key, option in KEYS.items() if key in values]


def _sampling(page: Mapping[str, Any], path: Path) -> dict[str, float]:
    given = {"top_k": TOP_K} | {key: page[key] for key in KEYS if page.get(key) is not None}
    if given.get("temperature") == 0:
        return {}
    found = {key: value for key, value in given.items() if value != OFF[key]}
    for key, value in found.items():
        try:
            built(samplers({key: value}))
        except ValueError as error:
            raise ValueError(f"{path}: {key}: {error}") from None
    return found or {"temperature": 1.0}


def _not_applied(page: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}: {page[key]}" for key, off in NEUTRAL.items() if page.get(key) not in (None, *off))
