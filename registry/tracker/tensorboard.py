"""Metrics for TensorBoard, in the folder `tensorboard` of the run; needs the package `tensorboard`."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from registry.contracts import Tracker
from registry.core import register
from registry.options import Options

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@register
class TensorBoard(Tracker):
    """Logs each value as a scalar; view them with `tensorboard --logdir FOLDER`."""

    def __init__(self, options: Options, folder: Path) -> None:
        super().__init__(options, folder)
        try:
            # The package is optional and slow to import, so it is asked for by those who use it.
            self._writers = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise ValueError(
                "tracker 'tensorboard' needs the package tensorboard, which is not installed; "
                "get it with: pip install 'transformer-kit[tensorboard]'"
            ) from error
        self._writer: SummaryWriter | None = None

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record each value under its name."""
        writer = self._open(None)
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        """Hide what was recorded after `step`."""
        self.close()
        self._open(step + 1)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, purge: int | None) -> "SummaryWriter":
        if self._writer is None:
            self._writer = self._writers.SummaryWriter(str(self.folder / "tensorboard"), purge_step=purge)
        return self._writer
