"""First places against a dictionary filled in plain Python."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.vocab.first_seen import first_seen

R, V = 3, 4
positions = st.lists(st.tuples(st.integers(0, V - 1), st.integers(0, R - 1), st.integers(0, 9)), max_size=20)


@settings(max_examples=100)
@given(positions, st.sampled_from([torch.int64, torch.int32]))
def test_first_places_match_a_dictionary(rows: list[tuple[int, int, int]], dtype: torch.dtype) -> None:
    first: dict[tuple[int, int], int] = {}
    for token, row, place in rows:
        first[row, token] = min(place, first.get((row, token), place))
    ids, row, place = (torch.tensor([entry[i] for entry in rows], dtype=torch.long) for i in range(3))
    found = first_seen(ids.to(dtype), row, place, rows=R, vocabulary=V)
    assert found.shape == (R, V)
    assert found.dtype == torch.int64
    for r in range(R):
        for token in range(V):
            if (r, token) in first:
                assert found[r, token] == first[r, token]
            else:  # never: no place lies behind it
                assert not (found[r, token] < place).any()


def test_nothing_to_see() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert first_seen(none, none, none, rows=0, vocabulary=5).shape == (0, 5)
    assert first_seen(none, none, none, rows=2, vocabulary=5).tolist() == [[0] * 5] * 2
