"""The command line: `kit`."""
