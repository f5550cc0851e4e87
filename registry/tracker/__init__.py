"""Loggers of metrics."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any

from registry.options import Options, Slot
from registry.part import Part


class Tracker(Part, ABC):
    """Logs the metrics of a run."""

    family = "tracker"

    def __init__(self, options: Any, folder: Path) -> None:
        """`folder` is where it may write, from the first `log` on. ValueError when it cannot work here."""
        self.options = options
        self.folder = folder

    @abstractmethod
    def log(self, step: int, values: dict[str, float]) -> None:
        """Record `values` of `step`."""

    def rewind(self, step: int) -> None:
        """Forget what was recorded after `step`: the run goes on from there."""

    def close(self) -> None:
        """Flush and let go."""


TrackerSlot = Annotated[Options, Slot("tracker")]
