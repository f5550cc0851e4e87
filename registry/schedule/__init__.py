"""Learning-rate schedules."""

from abc import ABC, abstractmethod
from typing import Annotated, Any

from registry.options import Options, Slot
from registry.part import Part


class Schedule(Part, ABC):
    """Scales the learning rate over the run."""

    family = "schedule"

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def scale(self, step: int, steps: int) -> float:
        """Factor in [0, 1] for `step` (from 0) of a run of `steps`."""


ScheduleSlot = Annotated[Options, Slot("schedule")]
