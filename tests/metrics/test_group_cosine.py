"""Mean cosines of groups against loops over pairs."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.metrics.group_cosine import cosine_of_sums, group_cosines


def naive(weight: torch.Tensor, first: list[int], second: list[int]) -> float | None:
    found = []
    for i, j in itertools.product(first, second):
        a, b = weight[i].double(), weight[j].double()
        if i != j and bool(a.any()) and bool(b.any()):
            found.append(float(a @ b / (a.norm() * b.norm())))
    return sum(found) / len(found) if found else None


@given(st.data())
def test_matches_loops_over_pairs(data: st.DataObject) -> None:
    size, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    weight = (torch.randn(size, width, generator=generator) + 0.5).to(dtype)
    weight[sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=2)))] = 0
    ids = st.sets(st.integers(0, size - 1)).map(sorted)
    groups = {name: data.draw(ids) for name in ("a", "b", "c")}  # they may overlap and be empty
    found = group_cosines(weight, {name: torch.tensor(ids, dtype=torch.long) for name, ids in groups.items()})
    for name, other in itertools.product(groups, repeat=2):
        expected = naive(weight, groups[name], groups[other])
        assert found[name][other] == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_no_pair_no_number() -> None:
    found = group_cosines(torch.eye(3), {"one": torch.tensor([1]), "none": torch.arange(0)})
    assert found == {"one": {"one": None, "none": None}, "none": {"one": None, "none": None}}


def test_copies_stay_within_bounds() -> None:
    weight = torch.full((1000, 3), 0.1)
    value = group_cosines(weight, {"all": torch.arange(1000)})["all"]["all"]
    assert value is not None
    assert 1 - 1e-12 < value <= 1.0
    unit = torch.tensor([1.0000001], dtype=torch.float64)
    assert cosine_of_sums(unit, -unit, 1, 1, 0) == -1.0


@pytest.mark.parametrize("ids", [[0, 3], [-1], [1, 1]])
def test_ids_that_are_no_set_of_rows_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="'a' must lie in 0 to 2, each once"):
        group_cosines(torch.eye(3), {"a": torch.tensor(ids)})
