"""Device and dtype of a command."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import torch


def placed(device: str, dtype: str | None) -> "tuple[torch.device, torch.dtype | None]":
    """Device and dtype from `--device` and `--dtype`. Raises BadParameter for unknown or missing ones."""
    import torch

    from transformer_kit.spec.schema import Hardware
    from transformer_kit.train.precision import place

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype is not None and dtype not in kinds:
        raise typer.BadParameter(f"--dtype must be one of {', '.join(kinds)}, got {dtype}")
    try:
        where = place(Hardware(device=device)).device
    except ValueError as error:
        raise typer.BadParameter(f"--device: {error}") from None
    return where, None if dtype is None else kinds[dtype]
