"""Shared by routers: scores from a projection, choice of the top k, and load balancing in training."""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from registry.context import PADDING, Context
from registry.contracts import Router, Site
from registry.options import Count, Group, NonNegative, Positive


class Learning(Group):
    """Load balancing in training. Where it is given, the metrics show the load of the experts."""

    load_balancing_loss: NonNegative = 0.0
    """Coefficient of the load-balancing loss E sum_e f_e p_e, with f_e the fraction of choices that fell on expert e,
    which add up to 1, and p_e its mean normalized score (Switch, arXiv:2101.03961, equation 4). Each layer adds its
    own. Hugging Face's auxiliary loss is top_k times that of one layer. Over several layers it averages f and p first,
    so that its coefficient c is about c top_k / layers here."""
    z_loss: NonNegative = 0.0
    """Coefficient of the router z-loss, the mean square of log(sum(exp(logits))) (ST-MoE, Zoph et al. 2022,
    arXiv:2202.08906, equation 5)."""


class BiasLearning(Learning):
    """What training adds for a router that may have a bias correction."""

    bias_update_rate: NonNegative = 0.0
    """Added to the bias correction of underloaded experts after each step, and subtracted from that of overloaded ones
    (auxiliary-loss-free load balancing: Wang et al. 2024, arXiv:2408.15664; DeepSeek-V3)."""


class Groups(Group):
    """Group-limited routing: the best groups of experts first, then the best experts of those."""

    n_groups: Count
    """Number of groups of equal size, in the order of the experts."""
    top_k_groups: Count
    """Groups per token that experts are chosen from."""
    score: Literal["max", "top_2"]
    """A group's score: its best expert's, or the sum of its two best."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.top_k_groups > self.n_groups:
            raise ValueError(f"top_k_groups must be at most n_groups ({self.n_groups}), got {self.top_k_groups}")
        return self


class Choice(Group):
    """How many experts a token is routed to, and how their outputs are weighted."""

    top_k: Count = Field(examples=[2, 1])
    """Experts per token."""
    normalize_top_k: bool = True
    """Whether the weights of the chosen experts are divided by their sum."""
    scale: Positive = 1.0
    """Multiplies the weights."""
    bias: bool = False
    """Whether the router's projection adds a bias."""
    bias_correction: bool = False
    """Whether a stored bias without gradient is added to the scores for choosing, not for weighting
    (auxiliary-loss-free load balancing: DeepSeek-V3)."""
    softcap: Positive | None = None
    """Soft cap of the logits, cap * tanh(logits / cap); none when not given."""
    groups: Groups | None = Field(default=None, examples=[{"n_groups": 3, "top_k_groups": 1, "score": "max"}])
    """Group-limited routing; none when not given."""
    learning: BiasLearning | None = Field(default=None, examples=[{"load_balancing_loss": 0.5}])
    """Load balancing in training; none when not given."""

    @model_validator(mode="after")
    def _rate_needs_a_correction(self) -> Self:
        if self.learning is not None and self.learning.bias_update_rate and not self.bias_correction:
            raise ValueError("learning.bias_update_rate needs bias_correction: true")
        return self


class Scored(Router):
    """A router that projects tokens to one logit for each expert."""

    bias_correction: Tensor

    def __init__(self, options: Choice, site: Site) -> None:
        super().__init__(options, site)
        experts = site.n_experts
        if experts is None:
            raise ValueError("a router stands in a mixture of experts")
        if options.top_k > experts:
            raise ValueError(f"top_k must be at most n_experts ({experts}), got {options.top_k}")
        _check_groups(options, experts)
        # The learning options do not change the function: models that differ in them alone are equal to an export.
        self.options, self.experts, self.top_k = options.model_copy(update={"learning": None}), experts, options.top_k
        self._load = None if options.learning is None else Load(options.learning, experts)
        self.logit = Float32Linear(site.d_model, experts, bias=options.bias)
        self.register_buffer("bias_correction", torch.empty(experts) if options.bias_correction else None)
        self.reset_parameters()

    def logits(self, x: Tensor) -> Tensor:
        """x (N, D) -> (N, E), in float32."""
        logits = self.logit(x)
        cap = self.options.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def choose(self, logits: Tensor, scores: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """logits (N, E) and scores (N, E) -> weights (N, top_k) and indices (N, top_k) of the chosen."""
        options = self.options
        # Scores grow with logits, but saturate: a sigmoid of 17 is 1 in float32, and equal scores would have no order.
        plain = options.groups is None and self.bias_correction is None
        ranked = logits if plain else scores if self.bias_correction is None else scores + self.bias_correction
        if options.groups is not None:
            ranked = ranked.masked_fill(~_kept(ranked, options.groups), float("-inf"))
        chosen = ranked.topk(options.top_k, dim=-1).indices
        weights = scores.gather(-1, chosen)
        if options.normalize_top_k:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        if self.training and self._load is not None:
            self._load.see(logits, scores, chosen, context)
        return weights * options.scale, chosen

    def after_step(self) -> dict[str, Tensor]:
        if self._load is None:
            return {}
        return self._load.told(self.bias_correction if self.logit.weight.requires_grad else None)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        if self.bias_correction is not None:
            nn.init.zeros_(self.bias_correction)


class Float32Linear(nn.Linear):
    """x W^T + b in float32, whatever autocast would multiply in: near ties decide which experts are chosen."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        kind = "cpu" if x.is_meta else x.device.type  # the meta device has no autocast
        if not torch.is_autocast_enabled(kind):
            return nn.functional.linear(x.float(), self.weight.float(), bias)
        with torch.autocast(kind, enabled=False):
            return nn.functional.linear(x.float(), self.weight.float(), bias)


class Load:
    """How many tokens chose each expert since the last step, and the losses that depend on it."""

    def __init__(self, options: Learning, experts: int) -> None:
        self.options, self.experts = options, experts
        self.rate = options.bias_update_rate if isinstance(options, BiasLearning) else 0.0
        self.counts: Tensor | None = None  # (E,)

    def see(self, logits: Tensor, scores: Tensor, chosen: Tensor, context: Context) -> None:
        """One pass in training: logits and scores (N, E), chosen (N, top_k). Padding does not count."""
        segments = context.segments
        # In float32 whatever the logits are: bfloat16 counts to 256.
        real = (torch.ones_like(logits[:, 0], dtype=torch.bool) if segments is None else segments != PADDING).flatten()
        real = real.float()
        tokens = real.sum().clamp(min=1)
        counts = real.new_zeros(self.experts).index_add(0, chosen.flatten(), real[:, None].expand_as(chosen).flatten())
        if self.options.load_balancing_loss:  # E sum_e f_e p_e: f_e the share of choices, p_e the mean share of score
            shares = scores / scores.sum(dim=-1, keepdim=True)
            mean = (shares * real[:, None]).sum(dim=0) / tokens
            even = self.experts * (counts / (tokens * chosen.shape[1]) * mean).sum()
            context.losses.append(self.options.load_balancing_loss * even)
        if self.options.z_loss:
            square = logits.logsumexp(dim=-1).square()
            context.losses.append(self.options.z_loss * (square * real).sum() / tokens)
        self.counts = counts.detach() if self.counts is None else self.counts + counts.detach()

    @torch.no_grad()
    def told(self, correction: Tensor | None) -> dict[str, Tensor]:
        """After a step: moves the correction, if one is given, and forgets. The largest and the smallest load, in
        shares of an even one, and the entropy of the load, of which one is the most.
        """
        counts, self.counts = self.counts, None
        if counts is None:
            return {}
        if correction is not None and self.rate:
            correction.add_((counts.mean() - counts).sign().type_as(correction), alpha=self.rate)
        share = counts / counts.sum().clamp(min=1)
        entropy = -torch.xlogy(share, share).sum() / math.log(max(self.experts, 2))
        return {
            "load_max": self.experts * share.max(),
            "load_min": self.experts * share.min(),
            "load_entropy": entropy,
        }


def _kept(ranked: Tensor, groups: Groups) -> Tensor:
    """Which experts (N, E) stand in the groups that stay."""
    members = ranked.unflatten(-1, (groups.n_groups, -1))  # (N, groups, E / groups)
    score = members.amax(dim=-1) if groups.score == "max" else members.topk(2, dim=-1).values.sum(dim=-1)
    kept = torch.zeros_like(score, dtype=torch.bool).scatter(-1, score.topk(groups.top_k_groups, dim=-1).indices, True)
    return kept[..., None].expand_as(members).flatten(-2)


def _check_groups(options: Choice, experts: int) -> None:
    groups = options.groups
    if groups is None:
        return
    if experts % groups.n_groups:
        raise ValueError(f"groups.n_groups must divide n_experts ({experts}), got {groups.n_groups}")
    size = experts // groups.n_groups
    if groups.score == "top_2" and size < 2:
        raise ValueError(f"score 'top_2' needs groups of two or more experts, got {size}")
    most = groups.top_k_groups * size
    if options.top_k > most:
        raise ValueError(f"top_k must be at most the experts of the chosen groups ({most}), got {options.top_k}")
