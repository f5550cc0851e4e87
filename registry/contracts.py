"""The contracts of the kit's families, in one place to import from. Each is defined in its family's `__init__.py`.

A contract is a base class that says what parts of a family take, return and promise. A part derives from one contract
alone. A new family brings its contract in its own folder and needs no line here.

Letters of shapes, the same in every file: B batch, T query tokens, S key tokens, D d_model, H heads, G kv heads,
K head_dim, F d_ff, V vocab.
"""

from registry.activation import Activation, ActivationSlot
from registry.block import Block, BlockSlot
from registry.dataset import Dataset, DatasetSlot
from registry.embedding import Embedding, EmbeddingSlot
from registry.ffn import FFN, FFNSlot
from registry.head import Head, HeadSlot
from registry.init import Init, InitSlot
from registry.kernel import Kernel, KernelSlot
from registry.mixer import Mixer, MixerSlot
from registry.norm import Norm, NormSlot
from registry.objective import Objective, ObjectiveSlot
from registry.optimizer import Optimizer, OptimizerSlot
from registry.part import ModelPart, Part, Site
from registry.position import Position, PositionSlot
from registry.router import Router, RouterSlot
from registry.sampler import Sampler, SamplerSlot
from registry.scaling import Scaling, ScalingSlot
from registry.schedule import Schedule, ScheduleSlot
from registry.tokenizer import Spans, Tokenizer, TokenizerSlot
from registry.tracker import Tracker, TrackerSlot
from registry.weight import Role, Weight

__all__ = [
    "FFN", "Activation", "ActivationSlot", "Block", "BlockSlot", "Dataset", "DatasetSlot", "Embedding",
    "EmbeddingSlot", "FFNSlot", "Head", "HeadSlot", "Init", "InitSlot", "Kernel", "KernelSlot", "Mixer",
    "MixerSlot", "ModelPart", "Norm", "NormSlot", "Objective", "ObjectiveSlot", "Optimizer", "OptimizerSlot",
    "Part", "Position", "PositionSlot", "Role", "Router", "RouterSlot", "Sampler", "SamplerSlot", "Scaling",
    "ScalingSlot", "Schedule", "ScheduleSlot", "Site", "Spans", "Tokenizer", "TokenizerSlot", "Tracker",
    "TrackerSlot", "Weight",
]  # fmt: skip
