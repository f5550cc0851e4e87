"""Weight initialization."""

from abc import ABC, abstractmethod
from typing import Annotated, Any

from torch import Generator, Tensor, nn

from registry.options import Options, Slot
from registry.part import Part, Site
from registry.weight import Weight


class Init(Part, ABC):
    """Initializes linear and embedding layers, by the name, role and layer of each weight."""

    family = "init"

    def __init__(self, options: Any, site: Site) -> None:
        self.options = options
        self.site = site

    @abstractmethod
    def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
        """Fill `weight`, (out, in) or a table (rows, width), in place, drawing from `generator` alone."""

    def fill_bias(self, bias: Tensor, where: Weight, generator: Generator) -> None:
        """Fill the bias (out,) of a linear layer in the same way; with zeros unless overridden."""
        nn.init.zeros_(bias)


InitSlot = Annotated[Options, Slot("init")]
