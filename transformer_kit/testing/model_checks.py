"""Checks of a part inside a whole model: construction, saving, copies, compilation, training, and decoding.

Each runs on the part's minimal options, most on every change of a single option as well.
"""

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from registry.contracts import ModelPart, Position
from registry.options import Options
from transformer_kit.model.build import assemble
from transformer_kit.model.model import Model
from transformer_kit.spec.errors import SpecError
from transformer_kit.testing import behaviors
from transformer_kit.testing.carriers import ROWS, VOCAB, Carrier, agree, carrier, strong_init, tokens
from transformer_kit.testing.checks import MODEL, check
from transformer_kit.testing.values import minimal, variants


def default(part: Any) -> Carrier:
    """A model around the part's minimal options."""
    return carrier(minimal(part))


@lru_cache(maxsize=2)
def standing(part: Any) -> tuple[tuple[str, Carrier], ...]:
    """A model around each valid variant of a part; refused variants must give a reason."""
    return tuple((what, held) for what, options in variants(part) if (held := _carried(options)) is not None)


@check(MODEL)
def meta_equals_real(part: Any) -> None:
    """Models on the meta device and in memory have the same tensors: names, shapes, kinds."""
    for what, held in standing(part):
        expected = _outline(held.build())
        got = _outline(assemble(held.spec, held.kernel))
        assert got == expected, f"{what}: {got ^ expected} on meta or in memory alone"


@check(MODEL)
def weights_all_filled(part: Any) -> None:
    """Initialization fills every parameter and buffer: no uninitialized value remains."""
    for what, held in standing(part):
        model = assemble(held.spec, held.kernel).to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(float("nan") if tensor.is_floating_point() else -77)
        model.init_weights(0)
        expected = held.build().state_dict()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, expected[name]), f"{what}: {name} depends on what lay in memory before"
            assert torch.isfinite(tensor).all(), f"{what}: {name} is not finite"


@check(MODEL)
def deterministic(part: Any) -> None:
    """A seed determines the weights, another seed changes them, and evaluation draws no random numbers."""
    held = default(part)
    first, again, other = (_weights(held.build(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[n], again[n]) for n in first), "two builds with one seed differ"
    assert any(not torch.equal(first[n], other[n]) for n in first), "the seed changes nothing"
    model = held.strong()
    ids = tokens(model)
    before = torch.random.get_rng_state()
    assert torch.equal(model(ids).logits, model(ids).logits), "two evaluations differ"
    assert torch.equal(before, torch.random.get_rng_state()), "evaluation draws from the global random numbers"


@check(MODEL)
def no_shared_storage(part: Any) -> None:
    """Two models share no memory, so training one does not change the other; nor do two decode states."""
    held = default(part)
    one, two = held.build(), held.build()
    assert not _storages(one) & _storages(two), "two models share memory"
    ids = tokens(one)
    first, second = one.state(ROWS), one.state(ROWS)
    expected = one(ids).logits
    one(ids.flip(1), state=second)
    agree(one(ids, state=first).logits, expected, "logits beside another decode state")


@check(MODEL)
def state_dict_round_trips(part: Any) -> None:
    """The state dict determines the output: another model that loads it gives the same output."""
    for what, held in standing(part):
        model, other = held.strong(0), held.strong(1)
        ids = tokens(model)
        other.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(model(ids).logits, other(ids).logits), f"{what}: other output after loading the weights"


@check(MODEL)
def shapes_and_types(part: Any) -> None:
    """Logits are (B, T, V), also for a single token and for one row, in the weights' dtype, in decoding as well."""
    held = default(part)
    for kind in (torch.float32, torch.float64, torch.bfloat16):
        model = held.build().to(kind).eval()
        for rows, length in ((ROWS, 7), (1, 1), (2, 1)):
            ids = tokens(model, rows, length)
            for logits in (model(ids).logits, model(ids, state=model.state(rows)).logits):
                assert logits.shape == (rows, length, VOCAB), f"logits {tuple(logits.shape)} for ids {(rows, length)}"
                assert logits.dtype == kind, f"logits of {logits.dtype} from weights of {kind}"


@check(MODEL)
def finite_in_bfloat16(part: Any) -> None:
    """Neither logits nor gradients overflow in bfloat16, with strong weights and with the part's own."""
    for what, held in standing(part):
        for init in (strong_init, lambda _: None):
            model = held.build()
            init(model)
            model = model.to(torch.bfloat16).train()
            ids = tokens(model)
            logits, loss = model(ids, ids)
            assert loss is not None
            loss.backward()
            finite = [torch.isfinite(logits).all(), *(torch.isfinite(p.grad).all() for p in _graded(model))]
            assert all(finite), f"{what}: not finite in bfloat16"


@check(MODEL)
def every_parameter_learns(part: Any) -> None:
    """Each parameter gets a finite gradient in every variant, and a nonzero one in some variant."""
    learning: dict[str, bool] = {}
    for what, held in standing(part):
        for seed in range(3):
            model = held.strong(seed).train()
            ids = tokens(model, seed=seed)
            segments = (torch.arange(ids.shape[1]) // 5).expand_as(ids) - 1  # padding, then two documents
            loss = model(ids, ids.roll(-1, 1), segments=segments).loss
            assert loss is not None
            loss.backward()
            for name, p in model.named_parameters():
                assert p.grad is not None, f"{what}: {name} is not used"
                assert torch.isfinite(p.grad).all(), f"{what}: gradient of {name} is not finite"
                learning[name] = learning.get(name, False) or bool(p.grad.any())
            for name in _left_idle(model):  # an expert without tokens here
                learning.pop(name, None)
    never = [name for name, learns in learning.items() if not learns]
    assert not never, f"gradient always zero: {', '.join(never)}"


def _left_idle(model: Model) -> Iterator[str]:
    """Parameters of parts in which some parameters get no token."""
    for name, module in model.named_modules():
        if isinstance(module, ModelPart) and module.idle():
            yield from (
                f"{name}.{inner}" for inner, p in module.named_parameters() if p.grad is None or not p.grad.any()
            )


@check(MODEL)
def modules_are_reached(part: Any) -> None:
    """Each registered module has its unique name, and the forward pass calls it, so that its hooks run.

    Exceptions are lists of modules, and positions, whose other methods mixers and the model call.
    """
    model = default(part).strong()
    called: set[nn.Module] = set()
    for name, module in model.named_modules():
        assert model.get_submodule(name) is module, f"{name} is registered and returns another module"
        module.register_forward_hook(lambda module, given, out: called.add(module))
    model(tokens(model))
    for name, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, Position)):
            assert module in called, f"{name} ({type(module).__name__}) is registered and never called"


@check(MODEL)
def copies_and_pickles(part: Any) -> None:
    """deepcopy and pickle give a model with the same output that shares no memory."""
    model = default(part).strong()
    ids = tokens(model)
    expected = model(ids).logits
    for how, other in (("deepcopy", copy.deepcopy(model)), ("pickle", pickle.loads(pickle.dumps(model)))):
        assert torch.equal(other(ids).logits, expected), f"{how} changes the output"
        assert not _storages(model) & _storages(other), f"{how} shares memory"


@check(MODEL)
def one_graph(part: Any) -> None:
    """torch.compile traces the model without graph breaks, and the output stays the same."""
    model = default(part).strong()
    model.layers = model.layers[:1]
    ids = tokens(model)
    segments = (torch.arange(ids.shape[1]) // 5).expand_as(ids) - 1
    torch.compiler.reset()
    traced = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    with warnings.catch_warnings():
        # torch's compiler instantiates every autograd.Function with `setup_context`, and torch warns about that.
        warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)
        for given in (None, segments):
            agree(traced(ids, ids, segments=given).logits, model(ids, segments=given).logits, "compiled logits")
    torch.compiler.reset()


@check("scaling")
def unsettled_if_it_says_so(part: Any) -> None:
    """A scaling with `settled` False has options that make it so, and outgrown sequences are refused."""
    unsettled = [model for _, model in _models(part) if not behaviors.settled(model)]
    if unsettled:
        assert any(behaviors.outgrows(model) for model in unsettled), "is settled after all"


@lru_cache(maxsize=1)
def _models(part: Any) -> tuple[tuple[str, Model], ...]:
    """Built once for all behaviors, which do not change models."""
    return tuple((what, held.strong()) for what, held in standing(part))


def _over_variants(behavior: behaviors.Behavior) -> Callable[[Any], None]:
    def run(part: Any) -> None:
        for what, model in _models(part):
            if behavior not in behaviors.expected_of(model):
                continue
            try:
                behavior(model)
            except Exception as error:
                error.add_note(f"with {what}")
                raise

    run.__name__, run.__doc__ = behavior.__name__, behavior.__doc__
    return run


for _behavior in dict.fromkeys((*behaviors.BEHAVIORS, *behaviors.UNSETTLED)):
    check(MODEL)(_over_variants(_behavior))


def _carried(options: Options) -> Carrier | None:
    try:
        return carrier(options)
    except SpecError as error:
        assert_reason(error)
        return None


def assert_reason(error: ValueError) -> None:
    """Check that a refusal gives a reason."""
    assert str(error), "refused without a reason"


def _outline(model: nn.Module) -> set[tuple[Any, ...]]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {(name, tuple(t.shape), t.dtype, t.requires_grad) for name, t in tensors.items()}


def _weights(model: Model) -> dict[str, Tensor]:
    return dict(model.state_dict())


def _storages(model: nn.Module) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}


def _graded(model: nn.Module) -> list[Any]:
    return [p for p in model.parameters() if p.grad is not None]
