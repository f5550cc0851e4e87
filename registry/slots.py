"""Types of fields that hold a part: `norm: NormSlot = named("rms_norm")`. One for each family."""

from typing import Annotated

from registry.options import Options, Slot

PositionSlot = Annotated[Options, Slot("position")]
ActivationSlot = Annotated[Options, Slot("activation")]
NormSlot = Annotated[Options, Slot("norm")]
MixerSlot = Annotated[Options, Slot("mixer")]
FFNSlot = Annotated[Options, Slot("ffn")]
BlockSlot = Annotated[Options, Slot("block")]
EmbeddingSlot = Annotated[Options, Slot("embedding")]
ScalingSlot = Annotated[Options, Slot("scaling")]
RouterSlot = Annotated[Options, Slot("router")]
HeadSlot = Annotated[Options, Slot("head")]
InitSlot = Annotated[Options, Slot("init")]
KernelSlot = Annotated[Options, Slot("kernel")]
TokenizerSlot = Annotated[Options, Slot("tokenizer")]
DatasetSlot = Annotated[Options, Slot("dataset")]
ObjectiveSlot = Annotated[Options, Slot("objective")]
OptimizerSlot = Annotated[Options, Slot("optimizer")]
ScheduleSlot = Annotated[Options, Slot("schedule")]
SamplerSlot = Annotated[Options, Slot("sampler")]
TrackerSlot = Annotated[Options, Slot("tracker")]
