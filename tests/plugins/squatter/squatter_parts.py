"""Importing this is what the tests prove never happens."""

raise SystemError("a stranger's code ran")
