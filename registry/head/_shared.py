"""What heads share: that a tied one fits its table."""

from registry.contracts import Site


def check_tied(width: int, site: Site) -> None:
    """ValueError unless features of this width can be read off the embedding's table."""
    if site.table is not None and width != site.table:
        raise ValueError(
            f"a tied head reads the embedding's rows, which have width {site.table}, with features of width {width}; "
            f"give width: {site.table} to the head, or leave `tied` out"
        )
