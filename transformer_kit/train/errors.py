"""The errors of training, as one family. A message says what happened and what to do about it.

Errors: TrainError (a ValueError)
        |- OutputError       the run's folder cannot be used, or a write into it failed
        |- CheckpointError   no checkpoint can be loaded, or it belongs to another run
        |- Diverged          a loss, a gradient or a weight is no longer a finite number
        |- TransferError     a trained folder does not fit the model of the run
        `- RoomError         the weights do not fit into memory
"""


class TrainError(ValueError):
    """Training cannot start, or cannot go on."""


class OutputError(TrainError):
    """The run's folder cannot be used, or a write into it failed."""


class CheckpointError(TrainError):
    """No checkpoint can be loaded, or it belongs to another run."""


class Diverged(TrainError):
    """A loss, a gradient or a weight is no longer a finite number."""


class TransferError(TrainError):
    """A trained folder does not fit the model of the run."""


class RoomError(TrainError):
    """The weights do not fit into memory."""
