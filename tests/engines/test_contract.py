"""Earlier targets against sets kept while walking along each sequence."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decone.engines.contract import earlier_targets

positions = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 30)),
    max_size=24,
    unique_by=lambda entry: (entry[1], entry[2]),
)


@settings(max_examples=100)
@given(positions, st.sampled_from([torch.int64, torch.int32]))
def test_lists_match_sets_kept_while_walking(entries: list[tuple[int, int, int]], dtype: torch.dtype) -> None:
    ids, sequence, offset = (torch.tensor([entry[i] for entry in entries], dtype=torch.long) for i in range(3))
    lists = earlier_targets(ids.to(dtype), sequence, offset)
    assert len(lists.token) == len({(token, r) for token, r, _ in entries})
    for n, (_, r, p) in enumerate(entries):
        before = [token for token, index, at in sorted(entries, key=lambda entry: entry[2]) if index == r and at < p]
        expected_lists = lists.token[lists.begin[n] : lists.begin[n] + lists.length[n]].tolist()
        assert expected_lists == list(dict.fromkeys(before))  # distinct, in order of first use


def test_more_tokens_than_ids_and_id_zero() -> None:
    ids = torch.tensor([0, 1, 0, 1, 1, 0])
    lists = earlier_targets(ids, torch.zeros(6, dtype=torch.long), torch.arange(6))
    assert lists.token.tolist() == [0, 1]
    assert lists.length.tolist() == [0, 1, 2, 2, 2, 2]
