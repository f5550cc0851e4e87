"""Lower bound of the time: FLOPs at the machine's peak, bytes at the machine's bandwidth."""

from dataclasses import dataclass

import torch

from transformer_kit.bench.work import Setting
from transformer_kit.cost import count
from transformer_kit.cost.card import card
from transformer_kit.model.build import assemble
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import Spec


@dataclass(frozen=True)
class Demand:
    """Cost of one round, for any candidate."""

    flops: float
    """A multiply-add counts as two."""
    bytes: float
    """Least bytes to load: each weight once (in decoding, once for each step), and the cache."""
    tokens: int
    """Tokens processed or generated."""

    def seconds(self, peak: float, bandwidth: float) -> float:
        """Lower bound of the time."""
        return max(self.flops / peak, self.bytes / bandwidth)


def demand(work: str, spec: Spec, setting: Setting) -> Demand:
    """Cost of one round for the model of `spec`."""
    costs = card(spec, batch=setting.batch, seq=setting.seq, dtype="float32")
    tokens = setting.batch * setting.seq
    if work == "train":
        return Demand(costs.flops.train_per_token * tokens, 0.0, tokens)
    model = assemble(spec).to(setting.dtype)
    weights, head = read_weights(model), _head_flops(model)
    if work == "prefill":  # logits of the last token alone
        return Demand((costs.flops.forward_per_token - head) * tokens + head * setting.batch, weights, tokens)
    size = torch.empty((), dtype=setting.dtype).element_size()
    past = count.state_bytes(model, setting.batch, setting.seq + setting.new // 2)
    steps = setting.new
    flops = 2 * weights / size * setting.batch * steps
    return Demand(flops, (weights + past) * steps, setting.batch * steps)


def read_weights(model: Model) -> float:
    """Bytes of the weights that one token uses: all except other embedding rows and inactive experts."""
    size = model.embedding.weight.element_size()
    active = count.parameters(model).active * size
    tables: list[torch.Tensor] = list(model.position.parameters())
    if not count.reads_table(model):
        tables.append(model.embedding.weight)
    return active - sum(t.nbytes for t in tables)


def _head_flops(model: Model) -> float:
    """FLOPs of one token's logits."""
    held = sum(p.numel() for p in model.head.parameters() if p.dim() >= 2)
    return 2.0 * (held + (model.embedding.weight.numel() if count.reads_table(model) else 0))
