"""Random whole specs, stacks of unequal layers among them, work in every way of reading."""

import torch
from hypothesis import HealthCheck, given, settings

from transformer_kit import Spec, build
from transformer_kit.testing import expected_of, specs, strong_init

FEW = settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@FEW
@given(specs())
def test_random_specs_work_in_every_way(spec: Spec) -> None:
    model = build(spec).double()
    strong_init(model)
    for behavior in expected_of(model):
        behavior(model.eval())


@FEW
@given(specs())
def test_random_specs_read_back(spec: Spec) -> None:
    assert Spec.of(spec.resolved()) == spec
    assert Spec.of(spec.resolved()).hash == spec.hash


@FEW
@given(specs(max_layers=1))
def test_random_specs_train(spec: Spec) -> None:
    model = build(spec)
    ids = torch.arange(10)[None] % spec.model.vocab_size
    loss = model(ids, ids).loss
    assert loss is not None
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
