"""Batches: every example once, similar lengths together, the order decided by seed and epoch."""

from hypothesis import given
from hypothesis import strategies as st

from decone.training.finetuning.loop import ordered, shuffled, steps


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300), st.integers(1, 40))
def test_every_example_is_in_one_batch(lengths: list[int], size: int) -> None:
    for batches in (shuffled(lengths, size, (1, 2)), ordered(lengths, size)):
        assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
        assert max(map(len, batches)) <= size
        assert len(batches) == steps(len(lengths), size)


def test_the_seed_and_the_epoch_decide_the_order() -> None:
    lengths = list(range(1, 101))
    first = shuffled(lengths, 8, (1, 0))
    assert first == shuffled(lengths, 8, (1, 0))
    assert first != shuffled(lengths, 8, (1, 1)) != shuffled(lengths, 8, (2, 0)) != first
    assert [batch[0] for batch in first] != sorted(batch[0] for batch in first), "batches are not in order of length"


def test_little_is_padded() -> None:
    lengths = [1, 100] * 32
    assert all(len({lengths[place] for place in batch}) == 1 for batch in shuffled(lengths, 8, (0, 0)))
    assert [lengths[batch[0]] for batch in ordered(lengths, 32)] == [100, 1]
