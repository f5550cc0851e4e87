"""What becomes of an error: the table names classes that exist, and causes decide between person and machine."""

import errno
from importlib import import_module

import pytest

from transformer_kit.cli import failures
from transformer_kit.cli.failures import CODES, ENVIRONMENT, FAILED, FIT, USAGE, NotFitting, failure
from transformer_kit.spec.errors import Mark, Problem, SpecError


@pytest.mark.parametrize("name", CODES)
def test_table_names_real_classes(name: str) -> None:
    module, _, cls = name.rpartition(".")
    found = getattr(import_module(module), cls)
    assert f"{found.__module__}.{found.__qualname__}" == name


def test_codes() -> None:
    import torch

    from registry.core import BrokenPart, UnknownPart
    from transformer_kit.train.errors import Diverged, OutputError, TransferError

    spec = SpecError([Problem(Mark("a.yaml", 1, 2), "wrong")])
    expected = {
        spec: USAGE,
        UnknownPart("x"): USAGE,
        BrokenPart("x"): ENVIRONMENT,
        OutputError("x"): ENVIRONMENT,
        TransferError("x"): USAGE,
        Diverged("x"): FAILED,
        ValueError("x"): USAGE,
        FileNotFoundError(errno.ENOENT, "x", "f"): USAGE,
        PermissionError(errno.EACCES, "x", "f"): ENVIRONMENT,
        OSError(errno.ENOSPC, "x"): ENVIRONMENT,
        ModuleNotFoundError("x"): ENVIRONMENT,
        MemoryError(): FIT,
        torch.OutOfMemoryError("x"): FIT,
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"): FIT,
        NotFitting("x"): FIT,
    }
    for error, code in expected.items():
        found = failure(error)
        assert found is not None, error
        assert found.code == code, error
        assert all(problem.text for problem in found.problems)


def test_faults_of_the_kit_are_not_hidden() -> None:
    for error in (TypeError("x"), RuntimeError("x"), AssertionError(), KeyError("x")):
        assert failure(error) is None


def test_a_cause_in_the_machine_is_the_environment() -> None:
    def raised(cause: Exception) -> int:
        try:
            try:
                raise cause
            except Exception as error:
                raise ValueError("tracker needs a package") from error
        except ValueError as error:
            found = failure(error)
        assert found is not None
        return found.code

    assert raised(ImportError("x")) == ENVIRONMENT
    assert raised(PermissionError(errno.EACCES, "x")) == ENVIRONMENT
    assert raised(FileNotFoundError(errno.ENOENT, "x")) == USAGE
    assert raised(KeyError("x")) == USAGE


def test_an_error_that_is_its_own_cause_is_told() -> None:
    error = ValueError("x")
    error.__cause__ = error
    found = failure(error)
    assert found is not None
    assert found.code == USAGE


def test_messages_name_files() -> None:
    found = failure(OSError(errno.ENOSPC, "No space left on device", "run/x"))
    assert found is not None
    assert found.problems[0].text == "run/x: No space left on device"
    assert failures.entry(found.problems[0])["file"] == ""
