"""Slopes of linear biases."""


def slopes(n_heads: int, flattest: float = 8.0) -> list[float]:
    """2^(-flattest i/n) for i = 1..n when n is a power of two; else those of the next power below, and then every
    other one of twice as many (the published rule for other numbers of heads).
    """
    below = 1 << (n_heads.bit_length() - 1)
    fine = [2 ** (-flattest * i / (2 * below)) for i in range(1, 2 * below + 1)]
    return (fine[1::2] + fine[::2])[:n_heads]
