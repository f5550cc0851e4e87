"""Tokens are drawn from the distribution that the samplers leave, by numbers that belong to one row alone."""

import pytest
import torch

from registry import core
from registry.contracts import Sampler
from transformer_kit.generate.choose import built, choose, uniforms


def test_draws_follow_the_distribution() -> None:
    share = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    draws = uniforms(11, 1, 20_000)[0]
    tokens = choose(share.log().expand(20_000, -1), [], draws)
    assert torch.allclose(tokens.bincount(minlength=5) / 20_000, share, atol=0.015)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_a_token_of_probability_zero_is_never_drawn(uniform: float) -> None:
    logits = torch.full((1, 9), -torch.inf)
    logits[0, 4] = -80.0
    assert choose(logits, [], torch.tensor([uniform], dtype=torch.float64)).tolist() == [4]


def test_every_share_of_the_line_belongs_to_its_token() -> None:
    logits = torch.tensor([[0.25, 0.25, 0.5]]).log()
    for uniform, token in [(0.0, 0), (0.2499, 0), (0.2501, 1), (0.4999, 1), (0.5001, 2), (0.9999, 2)]:
        assert choose(logits, [], torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


def test_samplers_see_single_precision_whatever_the_model_computes_in() -> None:
    seen: list[torch.dtype] = []

    class Looks(Sampler):
        """Notes what it is given."""

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            seen.append(logits.dtype)
            return logits

    logits = torch.tensor([[1.0, 4.0, 2.0]], dtype=torch.bfloat16)
    assert choose(logits, [Looks(Looks.Options())], None).tolist() == [1]
    assert seen == [torch.float32]


def test_numbers_depend_on_seed_and_row_alone() -> None:
    numbers = uniforms(1, 3, 40)
    assert numbers.dtype == torch.float64
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert len(numbers.unique()) == 120
    for count in (1, 7, 15, 16, 17, 39):
        assert torch.equal(uniforms(1, 2, count), numbers[:2, :count])
    assert not torch.equal(uniforms(2, 3, 40), numbers)


def test_samplers_that_leave_nothing_are_named_as_the_cause() -> None:
    class Nothing(Sampler):
        """Rules out every token."""

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            return torch.full_like(logits, -torch.inf)

    with pytest.raises(ValueError, match="samplers leave no token"):
        choose(torch.zeros(2, 3), [Nothing(Nothing.Options())], torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("samplers", [[], ["temperature"]])
def test_a_row_whose_logits_are_not_numbers_is_named(samplers: list[str]) -> None:
    logits = torch.zeros(3, 4)
    logits[1, 2] = torch.nan
    with pytest.raises(ValueError, match="logits for prompt 1 are not numbers"):
        choose(logits, built(samplers), torch.zeros(3, dtype=torch.float64))


def test_greedy_part_and_no_sampler_choose_the_same() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    greedy = core.get("sampler", "greedy")
    draws = uniforms(0, 50, 1)[:, 0]
    assert torch.equal(choose(logits, [greedy(greedy.Options())], draws), choose(logits, [], None))
