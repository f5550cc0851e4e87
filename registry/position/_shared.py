"""Slopes of linear biases."""

import torch
from torch import Tensor


def slopes(n_heads: int, flattest: float, device: torch.device) -> Tensor:
    """2^(-flattest i/n) for i = 1..n when n is a power of two; else those of the next power below, and then every
    other one of twice as many (the published rule for other numbers of heads): (n_heads,), float32.

    Made on the device: copied to it, they would have to be waited for.
    """
    below = 1 << (n_heads.bit_length() - 1)
    step = torch.arange(1, 2 * below + 1, device=device, dtype=torch.float32)
    fine = torch.exp2(step * (-flattest / (2 * below)))
    return torch.cat([fine[1::2], fine[::2]])[:n_heads]
