"""Settings of the whole suite."""

from collections import Counter
from typing import Any

from hypothesis import settings

pytest_plugins = ["tests.installed"]

# The first call of a torch operator may take a second; how long an example takes says nothing here.
settings.register_profile("kit", deadline=None)
settings.load_profile("kit")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many conformance checks each part passed, so that a run of nothing does not look green."""
    properties = (value for report in terminalreporter.stats.get("passed", []) for value in report.user_properties)
    passed = Counter(str(part) for name, part in properties if name == "conformance")
    if passed:
        terminalreporter.write_sep("-", f"conformance: {passed.total()} checks of {len(passed)} parts passed")
        terminalreporter.write_line(", ".join(f"{part} {count}" for part, count in sorted(passed.items())))
