"""The masks and scores that `kernel/flex` hands to torch, on the processor, where torch can compute them forward."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from registry.kernel.flex import flexed
from transformer_kit.testing import agree
from transformer_kit.testing.kernel_checks import Case, _inputs, cases, written_out


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("case", [c for c in cases() if c.length > 1], ids=str)
def test_flex_attention_is_told_what_is_seen(case: Case) -> None:
    for heads, softcap in ((4, None), (2, 1.5)):
        asked = Case(**{**vars(case), "kv_heads": heads, "softcap": softcap})
        q, k, v = _inputs(asked)[:3]
        with torch.no_grad():
            found = flexed(flex_attention, q, k, v, asked.mask(), 0.7, softcap)
        agree(found, written_out(asked, q, k, v, None, None, 0.7), f"attention in {asked}", tolerance=1e-4)
