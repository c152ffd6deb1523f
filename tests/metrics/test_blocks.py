"""What the metrics refuse, and that reading in blocks changes nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.metrics import table_geometry
from decone.metrics.neighbours import neighbours
from decone.metrics.table_geometry import isotropy, mean_direction
from decone.metrics.text import nll, nll_by_temperature, score_blocks, target_rank


@settings(max_examples=50)
@given(st.integers(0, 9), st.integers(1, 5), st.integers(1, 12))
def test_blocks_are_the_rows_in_order(rows: int, width: int, block: int) -> None:
    matrix = torch.randn(rows, width).to(torch.bfloat16)
    target = torch.randint(width, (rows,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_geometry, "BLOCK", block)
        parts = list(score_blocks(matrix, target))
    assert torch.equal(torch.cat([part for part, _ in parts]), matrix.double())
    assert torch.equal(torch.cat([chosen for _, chosen in parts]), target)
    assert all(part.dtype == torch.float64 and part.numel() <= max(block, width) for part, _ in parts)


def test_metrics_do_not_depend_on_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, target, weight = torch.randn(11, 7), torch.randint(7, (11,)), torch.randn(13, 4)

    def measure() -> list[torch.Tensor]:
        return [
            nll(logits, target),
            nll_by_temperature(logits, target, torch.tensor([0.3, 1.0])),
            target_rank(logits, target).double(),
            torch.tensor(isotropy(weight)),
            torch.tensor(mean_direction(weight)),
            torch.tensor(neighbours(weight, torch.arange(13), k=12)),
        ]

    whole = measure()
    monkeypatch.setattr(table_geometry, "BLOCK", 10)
    for expected, value in zip(whole, measure(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3, 4), (2,)), ((3, 4), (3, 1)), ((1, 3, 4), (1, 3))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="flatten both"):
        list(score_blocks(torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.long)))


@pytest.mark.parametrize("wrong", [-100, -1, 4])
def test_targets_outside_the_vocabulary_are_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="drop ignored positions"):
        list(score_blocks(torch.zeros(2, 4), torch.tensor([0, wrong])))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(3), "table"),
        (torch.zeros(2, 3, 4), "table"),
        (torch.zeros(3, 4, dtype=torch.long), "table"),
        (torch.zeros(0, 4), "empty"),
        (torch.zeros(4, 0), "empty"),
        (torch.tensor([[0.0, float("nan")]]), "NaN or infinite"),
        (torch.tensor([[0.0, float("-inf")]], dtype=torch.bfloat16), "NaN or infinite"),
    ],
)
def test_tables_that_cannot_be_measured_are_refused(weight: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table_geometry.require_table(weight)
    with pytest.raises(ValueError, match=message):
        isotropy(weight)
