"""`compile_layers`: each layer is compiled, and the model computes what it computed."""

import torch

from transformer_kit import Spec, build
from transformer_kit.transform.compile import compile_layers


@torch.no_grad()  # the compiler looks at `.grad` of activations, which torch warns of
def test_each_layer_is_compiled_as_one_graph_and_gives_the_same() -> None:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "mlp"}
    sizes = {"vocab_size": 11, "d_model": 8, "max_seq_len": 8, "position": "rope"}
    model = build(Spec.of({"model": {**sizes, "layers": {"count": 2, "block": block}}}))
    tokens, graphs = torch.arange(6)[None], list[str]()
    expected, names = model(tokens).logits, [name for name, _ in model.named_parameters()]

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(str(graph.graph))
        return graph.forward

    compiled = compile_layers(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(tokens).logits, expected)
    assert graphs
    assert [name for name, _ in compiled.named_parameters()] == names
