"""Training: a run config becomes a trained model in a folder, whatever interrupts it on the way.

    result = run(read_run("page.yaml"), "out", report=my_reporter)
    result = run(read_run("page.yaml"), "out", resume=True)

Read `step` for the arithmetic, `loop` for what happens when, `checkpoint` and `resume` for how nothing is lost.
"""

from transformer_kit.train.corpus import Corpus
from transformer_kit.train.errors import CheckpointError, Diverged, OutputError, RoomError, TrainError, TransferError
from transformer_kit.train.launch import Result, run, train
from transformer_kit.train.report import Plan, Progress, Reporter, Silent
from transformer_kit.train.transfer import Transfer

__all__ = [
    "CheckpointError",
    "Corpus",
    "Diverged",
    "OutputError",
    "Plan",
    "Progress",
    "Reporter",
    "Result",
    "RoomError",
    "Silent",
    "TrainError",
    "Transfer",
    "TransferError",
    "run",
    "train",
]
