"""Shared by heads: the check that a tied head fits the embedding table."""

from registry.contracts import Site


def check_tied(width: int, site: Site) -> None:
    """Raise ValueError unless the embedding table has this width."""
    if site.table is not None and width != site.table:
        raise ValueError(
            f"a tied head reads the embedding's rows, which have width {site.table}, with features of width {width}; "
            f"give width: {site.table} to the head, or leave `tied` out"
        )
