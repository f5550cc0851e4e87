"""The first weights."""
