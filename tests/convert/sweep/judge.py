"""What becomes of a drawn configuration: the same mathematics as in `transformers`, or a refusal with a true reason.

equal       logits of a whole text, of one with padding on its left, what is generated, and the export read again
refused     every problem names a key that the config has, and goes away without it
no class    `transformers` cannot compute it either; `detail` says what the kit does
differs     something else in silence: what must never be
untrue      refused for a reason that is not the config's
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.convert.references import SEED, configurations, strong
from tests.convert.sweep.draw import Case, config_class, goes_on
from transformer_kit.convert.declaration import declarations
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.convert.folder import load_folder, spec_of
from transformer_kit.generate.prompts import padded
from transformer_kit.model.model import Model

LENGTH, SHORTER, PROMPT, NEW = 40, 9, 12, 8


@dataclass(frozen=True)
class Outcome:
    """Of one configuration."""

    kind: str
    detail: str = ""


def judged(case: Case, folder: Path) -> Outcome:
    """The outcome of a case; `folder` is empty."""
    (folder / "in").mkdir()
    config = folder / "in" / "config.json"
    config.write_text(json.dumps(case.config))
    try:
        with quiet():
            theirs = reference(case, folder / "in")
            texts = _texts(theirs, case)
            if not bool(torch.isfinite(logits(theirs, texts[0])).all()):
                raise ValueError("logits are not finite")
            theirs.save_pretrained(folder / "in")
    except Exception as error:  # whatever their class dies of
        return Outcome("no class", f"{_kits(case)}; {type(error).__name__}: {error!s:.160}")
    config.write_text(json.dumps(case.config))
    try:
        ours = load_folder(folder / "in")
    except ConvertError as error:
        untrue = [problem for problem in error.problems if not true(problem, case.config)]
        return Outcome("untrue" if untrue else "refused", "; ".join(untrue or error.problems))
    with quiet(), torch.no_grad():
        return _compared(theirs, ours, texts, folder)


def reference(case: Case, folder: Path) -> Any:
    """Their model of a config.json, with strong weights."""
    import transformers

    entry = configurations()[case.name]
    config = config_class(case.name).from_pretrained(folder)
    kind = getattr(transformers, entry["model_class"])
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        attention = declarations()[config.model_type].attention
        config._experts_implementation = "eager"  # others need sizes that are multiples of four
        model = kind._from_config(config, attn_implementation=attention, dtype=torch.float32)
    return strong(model.float().eval())


def _texts(theirs: Any, case: Case) -> list[Tensor]:
    """Three batches of two texts: a tie between experts may fall in one, a difference shows in all."""
    length = LENGTH if goes_on(case.name) else min(LENGTH, _limit(case.config))
    generator = torch.Generator().manual_seed(case.seed)
    return [torch.randint(4, theirs.config.vocab_size, (2, length), generator=generator) for _ in range(3)]


def _limit(config: Mapping[str, Any]) -> int:
    keys = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    return min([v for k in keys if isinstance(v := config.get(k), int)], default=LENGTH)


@torch.no_grad()
def logits(theirs: Any, ids: Tensor) -> Tensor:
    """Theirs, of a model that remembers nothing: one token alone takes dynamic frequencies back to the first."""
    theirs(ids[:, :1], use_cache=False)
    found: Tensor = theirs(ids, use_cache=False).logits
    return found


def _compared(theirs: Any, ours: Model, texts: list[Tensor], folder: Path) -> Outcome:
    for check in (_whole, _padded, _diverges):
        if wrong := _twice(check, theirs, ours, texts):
            return Outcome("differs", wrong)
    try:
        export(ours, folder / "out", family=theirs.config.model_type)
    except ConvertError as error:
        return Outcome("untrue", f"export: {error!s:.300}")
    if wrong := _twice(_exported, theirs, _read_again(theirs, folder), texts):
        return Outcome("differs", wrong)
    same = load_folder(folder / "out").spec == ours.spec
    return Outcome("equal") if same else Outcome("differs", "the spec is another when it comes back")


def _twice(check: Callable[[Any, Any, Tensor], str], theirs: Any, other: Any, texts: list[Tensor]) -> str:
    """What is wrong in the first batch and in another one, and with more digits too: a narrow model may multiply
    roundings, which then shrink as a fault does not.
    """
    if not check(theirs, other, texts[0]) or not any(check(theirs, other, ids) for ids in texts[1:]):
        return ""
    return check(deepcopy(theirs).double(), deepcopy(other).double(), texts[0])


def _off(got: Tensor, expected: Tensor) -> float:
    """The difference as a multiple of what rounding explains."""
    return float((got - expected).abs().max()) / (2e-5 * max(1.0, float(expected.std())))


def _whole(theirs: Any, ours: Model, ids: Tensor) -> str:
    off = _off(ours(ids).logits, logits(theirs, ids))
    return f"logits are off by {off:.3g} roundings" if off > 1 else ""


def _padded(theirs: Any, ours: Model, ids: Tensor) -> str:
    batch, segments = padded([ids[0].tolist(), ids[1, :-SHORTER].tolist()], ids.device)
    got = ours(batch, segments=segments).logits
    alone = _off(got[:1], logits(theirs, ids[:1])), _off(got[1:, SHORTER:], logits(theirs, ids[1:, :-SHORTER]))
    return f"logits beside padding are off by {max(alone):.3g} roundings" if max(alone) > 1 else ""


def _diverges(theirs: Any, ours: Model, ids: Tensor) -> str:
    theirs.generation_config.eos_token_id = None
    theirs(ids[:, :1], use_cache=False)
    prompt = ids[:1, :PROMPT]
    text = _continued(theirs, prompt)
    new = text[0, PROMPT:].tolist()
    got = ours.generate([prompt[0].tolist()], max_new_tokens=NEW)[0]
    if got == new:
        return ""
    at = next(i for i, (a, b) in enumerate(zip(got, new, strict=True)) if a != b)
    last = logits(theirs, text[:, : PROMPT + at])[0, -1]
    gap = float(last[new[at]] - last[got[at]])
    return f"token {at} of what is generated is {got[at]}, not {new[at]}" if gap > 1e-3 else ""


def _continued(theirs: Any, prompt: Tensor) -> Tensor:
    """Their text, by their cache where that gives what is computed at once."""
    caches = [True, False] if _keeps_angles(theirs) else [False]
    for cached in caches:
        try:
            text: Tensor = theirs.generate(
                prompt, max_new_tokens=NEW, do_sample=False, use_cache=cached, pad_token_id=0
            )
        except RuntimeError:  # some caches of windows break on masks of their own
            if not cached:
                raise
        else:
            break
    return text


def _keeps_angles(theirs: Any) -> bool:
    """Whether its cache gives what it computes at once; not where frequencies change with the text."""
    kinds = json.dumps(getattr(theirs.config, "rope_parameters", None) or {})
    return theirs.config.model_type == "phi3" or not ('"dynamic"' in kinds or '"longrope"' in kinds)


def _exported(theirs: Any, again: Any, ids: Tensor) -> str:
    off = _off(logits(again, ids), logits(theirs, ids))
    return f"the export is off by {off:.3g} roundings" if off > 1 else ""


def _read_again(theirs: Any, folder: Path) -> Any:
    """The export, read by their class."""
    attention = theirs.config._attn_implementation
    kinds = {"attn_implementation": attention, "experts_implementation": "eager", "dtype": torch.float32}
    return type(theirs).from_pretrained(folder / "out", **kinds).eval()


def _kits(case: Case) -> str:
    """What the kit does with a config that their class fails on."""
    try:
        spec_of(case.config)
    except ConvertError as error:
        return f"refused: {'; '.join(error.problems):.160}"
    return "taken"


def true(problem: str, config: Mapping[str, Any]) -> bool:
    """Whether a problem names keys of the config, and is gone without them."""
    if found := re.search(r"(\w+) is not given", problem):
        return config.get(found[1]) is None
    named = {key for key in _keys(config) if re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", problem)}
    if not named:
        return False
    try:
        spec_of(_without(config, named))
    except ConvertError as error:
        return problem not in error.problems
    return True


def _keys(config: Any) -> Iterator[str]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield key
            yield from _keys(value)


def _without(config: Any, keys: set[str]) -> Any:
    if isinstance(config, Mapping):
        return {k: _without(v, keys) for k, v in config.items() if k not in keys or k == "model_type"}
    return config


@contextmanager
def quiet() -> Iterator[None]:
    """Without what `transformers` says of configs."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings(action="ignore"):
        yield
