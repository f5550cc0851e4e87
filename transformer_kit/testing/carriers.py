"""Tiny models around a part, for every slot where the part can be.

    carrier(options)        a spec that holds the part, and the kernel to run it with
    strong(spec)            a model whose parameters are all O(1) noise, so that small weights hide nothing
    tokens(model)           input ids

Sizes are small and unequal, so that a wrong axis gives a wrong result.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from registry import core
from registry.contracts import Init, Kernel, ModelPart, Part, Scaling
from registry.grouped import GroupedLinear
from registry.options import Options, Slot, slot_family
from transformer_kit.model.build import KERNEL, assemble, build
from transformer_kit.model.model import Model
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.schema import ModelSpec, Spec
from transformer_kit.testing.values import minimal, sound

D_MODEL, VOCAB, LENGTH, MAX_SEQ_LEN, ROWS, LAYERS = 24, 19, 13, 32, 3, 2
GAIN = 1.5
STATE = 0.2
"""Approximate size of buffers: a correction must not decide the scores alone."""


@dataclass(frozen=True)
class Carrier:
    """A model that holds the part under test."""

    spec: Spec
    kernel: Options

    def build(self, seed: int = 0) -> Model:
        """The model with its own initialization."""
        return build(self.spec, seed=seed, kernel=self.kernel)

    def assemble(self) -> Model:
        """The model on the meta device."""
        return assemble(self.spec, self.kernel)

    def strong(self, seed: int = 0) -> Model:
        """The model with strong weights, in evaluation mode and float64, which makes rounding negligible."""
        model = self.build().double()
        strong_init(model, seed)
        return model.eval()

    def with_model(self, **changes: Any) -> "Carrier":
        """The same spec with other fields of the model. SpecError for invalid ones."""
        model = {name: getattr(self.spec.model, name) for name in ModelSpec.model_fields}
        return Carrier(Spec.of({"plugins": list(self.spec.plugins), "model": {**model, **changes}}), self.kernel)


def carrier(options: Options) -> Carrier:
    """A tiny model with a part of these `options`; SpecError without a valid one."""
    refusal: SpecError | None = None
    broken: Exception | None = None
    for candidate in _carriers(options):
        try:
            assemble(candidate.spec, candidate.kernel)
        except SpecError as error:
            refusal = refusal or error
        except Exception as error:  # the error of another part, when another can hold it; else of the part itself
            broken = broken or error
        else:
            return candidate
    if broken is not None:
        raise broken
    if refusal is None:
        raise ValueError(f"a model has no slot for {options.part.family} '{options.part.name}'")
    raise refusal


def plain_model() -> Model:
    """A tiny model with strong weights, of no particular parts."""
    return Carrier(Spec.of(page()), _kernel()).strong()


def page(**model: Any) -> dict[str, Any]:
    """A tiny model as a mapping, with parts of the registry that hide as little as possible."""
    block = minimal(next(sound("block")), mixer=_mixer())
    sizes = {"vocab_size": VOCAB, "d_model": D_MODEL, "max_seq_len": MAX_SEQ_LEN}
    layers = {"blocks": [block] * LAYERS}
    return {"plugins": sorted(core.active()), "model": {**sizes, "position": _position(), "layers": layers, **model}}


def strong_init(module: nn.Module, seed: int = 0) -> None:
    """Fill every parameter, and every saved floating-point buffer, with noise away from zero, of either sign.

    Matrices have O(1) gain, scaled by fan-in. Values depend on the tensor's name and the seed; its first rows do not
    depend on the number of rows.
    """
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    vectors = {id(m.bias) for m in module.modules() if isinstance(m, GroupedLinear)}
    stored = module.state_dict().keys()
    with torch.no_grad():
        for name, p in module.named_parameters():
            u = _uniform(f"{seed}/{name}", p.shape)
            if id(p) in tables or (p.ndim >= 2 and id(p) not in vectors):
                noise = 2**0.5 * torch.erfinv(u)
                p.copy_(noise if id(p) in tables else noise * GAIN * p.shape[-1] ** -0.5)
            else:
                p.copy_(u.sign() * (0.5 + u.abs()))
        for name, b in module.named_buffers():
            if name in stored and b.is_floating_point():
                u = _uniform(f"{seed}/{name}", b.shape)
                b.copy_(STATE * u.sign() * (0.5 + u.abs()))


def _uniform(key: str, shape: torch.Size) -> Tensor:
    """A sequence of numbers between -1 and 1, exclusive, determined by the key."""
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "little"))
    return 1 - 2 * torch.rand(shape, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)


def tokens(model: Model, rows: int = ROWS, length: int = LENGTH, seed: int = 0) -> Tensor:
    """Random ids (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.spec.model.vocab_size, (rows, length), generator=generator)


def agree(got: Tensor, expected: Tensor, what: str, tolerance: float = 5e-4) -> None:
    """AssertionError when `got` is not finite or differs from `expected` by more than a small share of its spread."""
    assert got.shape == expected.shape, f"{what}: shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
    if not expected.numel():
        return
    assert bool(torch.isfinite(got).all()), f"{what}: not finite"
    spread = float(expected.detach().float().std(correction=0))
    off = float((got.detach().float() - expected.detach().float()).abs().max())
    assert off <= tolerance * max(spread, 1e-6), f"{what}: off by {off:.3g}, where values spread by {spread:.3g}"


def is_of_model(family: str) -> bool:
    """Whether the parts of a family belong to the model."""
    return issubclass(contract(family), (ModelPart, Init, Scaling))


def contract(family: str) -> type[Part]:
    """The base class of a family."""
    import_module(f"registry.{family}")  # slots that it can fill
    pending: list[type[Part]] = [Part]
    while pending:
        cls = pending.pop()
        if cls.__dict__.get("family") == family:
            return cls
        pending += cls.__subclasses__()
    raise core.UnknownFamily(f"no contract has the family '{family}'")


def _carriers(options: Options) -> Iterator[Carrier]:
    if issubclass(options.part, Kernel):
        yield Carrier(Spec.of(page()), options)
        return
    for model in _models(options, frozenset()):
        try:
            yield Carrier(Spec.of(page(**model)), _kernel())
        except SpecError:
            continue


def _models(options: Options, tried: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Changes to the model spec that include the part, in the model's own slots or inside other parts."""
    family = options.part.family
    if family == "block":
        yield {"layers": {"blocks": [options] * LAYERS}}
    direct = [n for n, f in ModelSpec.model_fields.items() if slot_family(f) == family and n != "layers"]
    for name in direct:
        for mixer in _mixers():  # not every mixer accepts every position scheme
            block = minimal(next(sound("block")), mixer=mixer)
            yield {name: options, "layers": {"blocks": [block] * LAYERS}}
    if not direct:
        for parent in _parents(family, tried):
            yield from _models(parent(options), tried | {family})


def _parents(family: str, tried: frozenset[str]) -> Iterator[Any]:
    for other in core.families():
        if other in tried or other == family or not is_of_model(other):
            continue
        for part in sound(other):
            for field_name, field in part.Options.model_fields.items():
                if slot_family(field) == family:
                    yield lambda options, part=part, field_name=field_name: minimal(part, **{field_name: options})


def _kernel() -> Options:
    return Slot("kernel").read(KERNEL)


def _mixers() -> list[Options]:
    """All mixers, first those that accept the most position schemes."""
    parts = [part for part in sound("mixer") if "." not in part.name]
    return [minimal(p) for p in sorted(parts, key=lambda p: -len(p.accepts))]


def _mixer() -> Options:
    return _mixers()[0]


def _position() -> Options:
    """A scheme of absolute positions, so that a token at a wrong position gives a wrong result."""
    parts = [part for part in sound("position") if "." not in part.name]
    chosen = next((p for p in parts if p.acts == "embedding" and not p.shift_invariant), parts[0])
    return Slot("position").read(chosen.name)
