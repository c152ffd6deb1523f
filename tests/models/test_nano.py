"""The small decoder: its size, what it may look at, how it begins, what it refuses."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from decone.models.nano import Nano, NanoConfig


def tiny(**settings: Any) -> Nano:
    return Nano(NanoConfig(**{"vocabulary": 11, "context": 8, "layers": 2, "heads": 2, "width": 16, **settings}))


def test_the_published_shape_has_800_thousand_parameters() -> None:
    model = Nano(NanoConfig(vocabulary=130))
    V, T, H, layers = 130, 64, 128, 4
    count = (V + T) * H + layers * (3 * H * H + H * H + 4 * H * H + 4 * H * H + 2 * H) + H
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    # The paper's 0.80 M counts the tables of tokens, blocks and norms; learned positions add 8,192.
    assert round((count - T * H) / 1e6, 2) == 0.80
    assert not [name for name, _ in model.named_parameters() if "bias" in name]


def test_untied_tables_are_two() -> None:
    tied, untied = tiny(), tiny(tied=False)
    assert tied.head is tied.embedding.weight
    assert untied.head is not untied.embedding.weight
    assert untied.head.shape == untied.embedding.weight.shape
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (tied, untied)]
    assert sizes[1] - sizes[0] == 11 * 16
    assert not torch.equal(untied.head, untied.embedding.weight)


@pytest.mark.parametrize("tied", [True, False])
def test_the_future_does_not_change_the_past(tied: bool) -> None:
    model = tiny(tied=tied)
    ids = torch.randint(11, (3, 8))
    before = model.logits(ids)
    for place in range(1, 8):
        other = ids.clone()
        other[:, place:] = (other[:, place:] + 1 + torch.randint(9, (3, 8 - place))) % 11
        after = model.logits(other)
        torch.testing.assert_close(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place], before[:, place])


def test_no_gradient_flows_back_from_the_future() -> None:
    model = tiny()
    seen = []
    model.embedding.register_forward_hook(lambda module, inputs, output: (output.retain_grad(), seen.append(output))[1])
    (model(torch.randint(11, (1, 8)))[0, 3] @ torch.randn(16)).backward()
    reached = seen[0].grad[0].abs().sum(1) > 0
    assert reached.tolist() == [True] * 4 + [False] * 4


def test_windows_of_a_batch_do_not_meet() -> None:
    model, ids = tiny(), torch.randint(11, (4, 8))
    apart = torch.cat([model.logits(row[None]) for row in ids])
    torch.testing.assert_close(model.logits(ids), apart)


def test_forward_against_a_naive_transformer() -> None:
    """Attention by loops and softmax, norms by hand, float64."""
    model = tiny().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    ids = torch.randint(11, (1, 6))

    def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * gain

    x = model.embedding.weight[ids[0]] + model.position.weight[:6]
    for block in model.blocks:
        y = norm(x, block.norm_1.weight)
        q, k, v = (y @ block.attention.qkv.weight.T).chunk(3, dim=1)
        mixed = torch.zeros_like(y)
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            for t in range(6):
                score = torch.stack([q[t, part] @ k[s, part] / math.sqrt(8) for s in range(t + 1)])
                mixed[t, part] = sum(p * v[s, part] for s, p in enumerate(score.softmax(0)))
        x = x + mixed @ block.attention.out.weight.T
        x = x + F.gelu(norm(x, block.norm_2.weight) @ block.up.weight.T) @ block.down.weight.T
    torch.testing.assert_close(model(ids)[0], norm(x, model.norm.weight))


def test_weights_begin_as_the_paper_has_them() -> None:
    torch.manual_seed(0)
    model = Nano(NanoConfig(vocabulary=130, tied=False))
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            assert bool((parameter == 1).all()), name
            continue
        wanted = 0.02 / math.sqrt(2 * 4) if name.endswith(("out.weight", "down.weight")) else 0.02
        n, parameter = parameter.numel(), parameter.detach()
        assert abs(float(parameter.mean())) < 5 * wanted / math.sqrt(n), name
        assert abs(float(parameter.std()) / wanted - 1) < 5 / math.sqrt(2 * n), name


def test_a_seed_gives_the_weights() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(tiny().head.detach())
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_dropout_is_for_training_only() -> None:
    model, ids = tiny(dropout=0.5), torch.randint(11, (2, 8))
    assert model.training
    assert not torch.equal(model(ids), model(ids))
    assert torch.equal(model.logits(ids), model.logits(ids))
    assert model.training, "measuring leaves the model as it was"
    model.eval()
    assert torch.equal(F.linear(model(ids), model.head), model.logits(ids))
    assert not model.training


def test_logits_have_no_gradient_and_are_float32() -> None:
    logits = tiny().to(torch.bfloat16).logits(torch.randint(11, (1, 3)))
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": 0}, "vocabulary >= 1; set it to the tokenizer's size"),
        ({"width": 15}, "width 15 is not a multiple of heads 2; choose one that is"),
        ({"heads": 0}, "greater than or equal to 1"),
        ({"dropout": 1.0}, "less than 1"),
        ({"dropout": math.nan}, "less than 1"),
        ({"depth": 3}, "depth"),
    ],
)
def test_shapes_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_a_longer_input_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="input of 9 tokens is longer than the context of 8; cut it"):
        tiny()(torch.zeros(1, 9, dtype=torch.long))
