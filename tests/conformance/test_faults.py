"""The kit finds faults: for each broken part below, the check that should fail does, and says what is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from registry import core
from registry.context import Context, Mask
from registry.contracts import FFN, Activation, Kernel, Mixer, Norm, Optimizer, Position, Scaling, Schedule, Site
from registry.options import Count, Positive
from registry.state import Capacity, Keys, LatentCache
from transformer_kit.testing import Failure, Report, check_part, checks_for
from transformer_kit.testing.values import LEFT_OUT, variants

Break = Callable[[], type[Any]]


class Counted(Mixer):
    """Mean of the tokens so far; a right one, from which the wrong ones derive."""

    def __init__(self, options: Mixer.Options, site: Site) -> None:
        super().__init__(options, site)
        self.out = nn.Linear(site.d_model, site.d_model)

    def forward(self, x: Tensor, context: Context, state: LatentCache | None = None) -> Tensor:
        keys: int | Tensor = context.length
        if state is not None:
            (x,), keys = state.append((x,), context)
        seen = context.mask(keys=keys).dense
        weights = seen[:, 0] if seen.ndim == 4 else seen  # (T, S) or (B, T, S)
        weights = weights.to(x.dtype) / weights.sum(-1, keepdim=True)
        return self.out(weights @ x)

    def state(self, capacity: Capacity) -> LatentCache:
        return LatentCache.allocate(capacity, width=self.out.in_features)


def future() -> type[Any]:
    class Future(Counted):
        def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
            return super().forward(x, context, state) + x.roll(-1, 1)

    return Future


def forgetful() -> type[Any]:
    class Forgetful(Counted):
        def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
            return super().forward(x, context, None) if context.length > 1 else super().forward(x, context, state)

    return Forgetful


def deaf_to_segments() -> type[Any]:
    class Deaf(Counted):
        def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
            whole = Context(context.start, context.length, context.positions)
            return super().forward(x, whole, state)

    return Deaf


def keeps_all_rows() -> type[Any]:
    class Stubborn(LatentCache):
        def select_rows(self, rows: Tensor) -> None:
            self.tensors = (self.tensors[0][: len(rows)] if len(rows) <= len(self.tensors[0]) else self.tensors[0],)

    class Keeping(Counted):
        def state(self, capacity: Capacity) -> LatentCache:
            return Stubborn.allocate(capacity, width=self.out.in_features)

    return Keeping


def keeps_drafts() -> type[Any]:
    class Growing(LatentCache):
        def append(self, new: tuple[Tensor, ...], context: Context) -> tuple[tuple[Tensor, ...], Keys]:
            self.tensors = (torch.cat([self.tensors[0], new[0]], dim=1),)
            return self.tensors, self.tensors[0].shape[1]

    class Keeping(Counted):
        def state(self, capacity: Capacity) -> LatentCache:
            return Growing.allocate(capacity._replace(max_length=0), width=self.out.in_features)

    return Keeping


def averages_over_room() -> type[Any]:
    class Averaging(Counted):
        """Divides by the number of keys that it is shown where that is the number of tokens so far, as a rule."""

        def forward(self, x: Tensor, context: Context, state: LatentCache | None = None) -> Tensor:
            if context.length > 1 or state is None:
                return super().forward(x, context, state)
            (x,), keys = state.append((x,), context)
            return self.out(x.sum(1, keepdim=True) / keys)

    return Averaging


def ignores_positions() -> type[Any]:
    class Ignoring(Counted):
        accepts = frozenset({"rotation"})

    return Ignoring


def mixes_rows() -> type[Any]:
    class BatchNorm(Norm):
        def forward(self, x: Tensor) -> Tensor:
            return x / (x.std(dim=0, keepdim=True, correction=0) + 1.0)

    return BatchNorm


def counts_from_zero() -> type[Any]:
    class Zero(Position):
        acts = "embedding"
        shift_invariant = False

        def embed(self, x: Tensor, context: Context) -> Tensor:
            places = torch.arange(context.length, device=x.device) + context.positions * 0
            channels = torch.arange(x.shape[-1], device=x.device)
            return x + (places[..., None] * channels).to(x.dtype).sin()

    return Zero


def promises_invariance() -> type[Any]:
    class Promising(Position):
        acts = "rotation"

        def rotate(self, q: Tensor, k: Tensor, context: Context) -> tuple[Tensor, Tensor]:
            grown = (1 + context.positions.to(q.dtype) / 10)[..., None]
            grown = grown[:, None] if grown.ndim == 3 else grown
            return q * grown, k * grown

    return Promising


def ignores_option() -> type[Any]:
    class Ignorant(FFN):
        class Options(FFN.Options):
            d_ff: Count = 4
            """Inner width."""
            scale: Positive = 1.0
            """Should multiply, and does not."""

        def __init__(self, options: Options, site: Site) -> None:
            super().__init__(options, site)
            self.up, self.down = nn.Linear(site.d_model, options.d_ff), nn.Linear(options.d_ff, site.d_model)

        def forward(self, x: Tensor, context: Context) -> Tensor:
            return self.down(self.up(x).relu())

    return Ignorant


def bypasses_a_module() -> type[Any]:
    class Bypassing(FFN):
        """Multiplies with the weight of a layer that it does not call."""

        def __init__(self, options: Any, site: Site) -> None:
            super().__init__(options, site)
            self.up = nn.Linear(site.d_model, site.d_model)

        def forward(self, x: Tensor, context: Context) -> Tensor:
            return nn.functional.linear(x, self.up.weight, self.up.bias)

    return Bypassing


def calls_by_the_clock() -> type[Any]:
    class Alternating(FFN):
        """Is linear in its first calls, and something else later, as what was prepared in few passes may not be."""

        def __init__(self, options: Any, site: Site) -> None:
            super().__init__(options, site)
            self.up = nn.Linear(site.d_model, site.d_model)
            self.calls = 0

        def forward(self, x: Tensor, context: Context) -> Tensor:
            self.calls += 1
            return self.up(x) if self.calls % 5 else -self.up(x)

    return Alternating


def ignores_its_gain() -> type[Any]:
    class Flat(core.get("block", "sandwich")):
        """Keeps a gain, which it does not multiply with."""

        def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
            mixed = self.mixer(self.mixer_norm(x), context, state)
            x = x + self.joining(self.mixer_post_norm(mixed))
            return x + self.joining(self.ffn_post_norm(self.ffn(self.ffn_norm(x), context)))

    return Flat


def ignores_its_correction() -> type[Any]:
    class Uncorrected(core.get("router", "softmax")):
        """Keeps a correction, which it does not choose by."""

        def choose(self, logits: Tensor, scores: Tensor, context: Context) -> tuple[Tensor, Tensor]:
            held, self.bias_correction = self.bias_correction, None
            try:
                return super().choose(logits, scores, context)
            finally:
                self.bias_correction = held

    return Uncorrected


def ignores_its_offset() -> type[Any]:
    class Aligned(core.get("position", "learned")):
        """Has more rows with an offset, and reads the first ones all the same."""

        def embed(self, x: Tensor, context: Context) -> Tensor:
            return self.norm(x + self.table(context.positions))

    return Aligned


def unused_weight() -> type[Any]:
    class Unused(FFN):
        def __init__(self, options: FFN.Options, site: Site) -> None:
            super().__init__(options, site)
            self.up, self.idle = nn.Linear(site.d_model, site.d_model), nn.Linear(site.d_model, site.d_model)

        def forward(self, x: Tensor, context: Context) -> Tensor:
            return self.up(x).relu()

    return Unused


def never_filled() -> type[Any]:
    class Unfilled(Norm):
        def __init__(self, options: Norm.Options, site: Site) -> None:
            super().__init__(options, site)
            self.weight = nn.Parameter(torch.ones(site.d_model))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    return Unfilled


def breaks_the_graph() -> type[Any]:
    class Looking(Norm):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.detach().abs().max()) < 1e9 else x / 2

    return Looking


def settled_after_all() -> type[Any]:
    class Settled(Scaling):
        settled = False

        def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
            return base / 2, 1.0

    return Settled


def depends_on_length() -> type[Any]:
    class Growing(Scaling):
        def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
            return base / length, 1.0

    return Growing


def linear() -> type[Any]:
    class Linear(Activation):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    return Linear


def forgets_the_window() -> type[Any]:
    class Windowless(Kernel):
        def forward(
            self,
            q: Tensor,
            k: Tensor,
            v: Tensor,
            mask: Mask,
            *,
            scale: float,
            softcap: float | None,
            bias: Tensor | None,
            sinks: Tensor | None,
            dropout: float,
        ) -> Tensor:
            eager = core.get("kernel", "eager")(None, Site(1))
            wide = replace(mask, window=None, built={})
            return eager(q, k, v, wide, scale=scale, softcap=softcap, bias=bias, sinks=sinks, dropout=dropout)

    return Windowless


def forgets_the_sinks() -> type[Any]:
    class Sinkless(Kernel):
        def forward(
            self,
            q: Tensor,
            k: Tensor,
            v: Tensor,
            mask: Mask,
            *,
            scale: float,
            softcap: float | None,
            bias: Tensor | None,
            sinks: Tensor | None,
            dropout: float,
        ) -> Tensor:
            eager = core.get("kernel", "eager")(None, Site(1))
            return eager(q, k, v, mask, scale=scale, softcap=softcap, bias=bias, sinks=None, dropout=dropout)

    return Sinkless


def forgets_numbers() -> type[Any]:
    class Forgetting(core.get("optimizer", "sgd")):
        """Steps vectors and matrices alone."""

        def make(self, model: nn.Module) -> torch.optim.SGD:
            return torch.optim.SGD([p for p in model.parameters() if p.requires_grad and p.ndim], lr=self.options.lr)

    return Forgetting


def leaves_bounds() -> type[Any]:
    class Rising(Schedule):
        def scale(self, step: int, steps: int) -> float:
            return step / 10

    return Rising


BROKEN: list[tuple[str, Break, str]] = [
    ("mixer", future, "causal"),
    ("mixer", forgetful, "decodes_as_it_reads"),
    ("mixer", deaf_to_segments, "packed_as_separate"),
    ("mixer", deaf_to_segments, "padded_as_alone"),
    ("mixer", keeps_all_rows, "rows_selected"),
    ("mixer", keeps_drafts, "tokens_forgotten"),
    ("mixer", averages_over_room, "decodes_with_a_static_cache"),
    ("mixer", ignores_positions, "uses_what_it_accepts"),
    ("ffn", bypasses_a_module, "modules_are_reached"),
    ("ffn", calls_by_the_clock, "prepared_models_decode_alike"),
    ("ffn", calls_by_the_clock, "int8_models_decode_nearly_alike"),
    ("norm", mixes_rows, "rows_independent"),
    ("norm", mixes_rows, "tokens_independent"),
    ("norm", never_filled, "weights_all_filled"),
    ("norm", breaks_the_graph, "one_graph"),
    ("scaling", settled_after_all, "unsettled_if_it_says_so"),
    ("scaling", depends_on_length, "decodes_as_it_reads"),
    ("position", counts_from_zero, "decodes_as_it_reads"),
    ("position", promises_invariance, "shifts_as_promised"),
    ("ffn", ignores_option, "every_option_matters"),
    ("block", ignores_its_gain, "every_option_matters"),
    ("router", ignores_its_correction, "every_option_matters"),
    ("position", ignores_its_offset, "every_option_matters"),
    ("ffn", unused_weight, "every_parameter_learns"),
    ("activation", linear, "elementwise"),
    ("kernel", forgets_the_window, "equals_attention"),
    ("kernel", forgets_the_sinks, "equals_attention"),
    ("schedule", leaves_bounds, "scales_within_bounds"),
    ("optimizer", forgets_numbers, "walks_downhill"),
]


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    with core.scope():
        yield


@pytest.mark.parametrize(("family", "broken", "name"), BROKEN, ids=[f"{b.__name__}-{n}" for _, b, n in BROKEN])
def test_fault_is_found(family: str, broken: Break, name: str) -> None:
    part = core.register("broken.part")(broken())
    check = next(c for c in checks_for(family) if c.name == name)
    with pytest.raises((AssertionError, RuntimeError, ValueError), match=r"\w"):
        check.run(part)


def test_the_right_mixer_passes_where_the_wrong_ones_fail() -> None:
    core.register("my.counted")(Counted)
    for check in checks_for("mixer"):
        if check.name != "documented":
            check.run(Counted)


class Chosen(Optimizer):
    """Two optimizers by name and shape: signs of gradients for the matrices of layers, SGD for all else."""

    def make(self, model: nn.Module) -> torch.optim.SGD:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        inner = [p for n, p in named if n.startswith("layers.") and p.ndim == 2]
        others = [p for n, p in named if not (n.startswith("layers.") and p.ndim == 2)]
        assert inner
        assert others
        groups = [{"params": inner, "momentum": 0.5}, {"params": others}]
        return torch.optim.SGD(groups, lr=self.options.lr)


def test_an_optimizer_may_choose_by_name_and_shape() -> None:
    core.register("my.chosen")(Chosen)
    for check in checks_for("optimizer"):
        if check.name in ("walks_downhill", "resumes_exactly"):
            check.run(Chosen)


class Touchy(Activation):
    """Fails in each pass."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("touchy")


class Stubborn(FFN):
    """Cannot be made."""

    def __init__(self, options: FFN.Options, site: Site) -> None:
        raise TypeError("stubborn")


@pytest.mark.parametrize(("family", "name"), [("activation", "relu"), ("ffn", "mlp"), ("norm", "rms_norm")])
def test_a_faulty_part_breaks_no_other_parts_checks(family: str, name: str) -> None:
    core.register("a.touchy")(Touchy)
    core.register("a.stubborn")(Stubborn)
    checks = {check.name: check for check in checks_for(family)}
    for check in ("meta_equals_real", "deterministic", "causal", "every_parameter_learns", "options_round_trip"):
        checks[check].run(core.get(family, name))
    assert not [what for what, _ in variants(core.get(family, name)) if "a." in what]
    with pytest.raises(TypeError, match="stubborn"):
        next(check for check in checks_for("ffn") if check.name == "deterministic").run(Stubborn)


def test_parts_that_cannot_be_imported_are_left_out_and_named(shop: Path) -> None:
    LEFT_OUT.clear()
    with core.activate(frozenset({"rotten"})):
        next(c for c in checks_for("ffn") if c.name == "options_round_trip").run(core.get("ffn", "mlp"))
    assert {"rotten.raises", "rotten.exits", "rotten.missing"} <= {name for _, name in LEFT_OUT}
    assert "the shelf gave way" in str(LEFT_OUT["activation", "rotten.raises"])
    report = Report("ffn", "mlp", ("causal",), ("activation/rotten.raises: BrokenPart: no",))
    assert str(report) == "ffn/mlp: 1 checks passed\n  left out: activation/rotten.raises: BrokenPart: no"


def test_check_part_says_all_that_failed() -> None:
    core.register("broken.part")(leaves_bounds())
    with pytest.raises(Failure, match="scales_within_bounds") as caught:
        check_part("schedule", "broken.part")
    assert "schedule/broken.part" in str(caught.value)


def test_check_part_reports_what_it_ran() -> None:
    report = check_part("activation", "relu")
    assert len(report.checks) > 15
    assert str(report) == f"activation/relu: {len(report.checks)} checks passed"
