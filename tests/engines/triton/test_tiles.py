"""Tiles: the quickest that fits is found once, each position lies in one, live columns and sums against plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decone.engines.triton import tiles
from decone.engines.triton.tiles import LogSum, Tile, arrange_tiles, candidates, list_live_columns, log_sum, quickest


@pytest.mark.parametrize("interpreted", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_candidates_fit_together(dtype: torch.dtype, interpreted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "interpreted", lambda: interpreted)
    found = candidates(dtype)
    (rows,) = {tile.rows for tile in found.logits}  # what lives is known per tile of positions, whatever its width
    assert all(tile.columns >= rows for tile in found.logits)  # the diagonal of the targets' tile
    assert len({tile.rows for tile in found.table}) == 1
    assert all(rows % tile.depth == 0 for tile in found.table)
    for tile in (*found.logits, *found.hidden, *found.table):
        assert all(side >= 16 and side & (side - 1) == 0 for side in tile[:3])


def test_the_quickest_that_fits_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_FASTEST", {})
    milliseconds = {"slow": 3.0, "quick": 1.0, "large": float("inf")}
    timed, reset = [], []

    def time(run: object, choice: str) -> tuple[float, Exception | None]:
        timed.append(choice)
        return milliseconds[choice], MemoryError() if choice == "large" else None

    monkeypatch.setattr(tiles, "_time", time)
    for _ in range(2):
        assert quickest("kernel", ["slow", "large", "quick"], print, lambda: reset.append(1)) == "quick"
    assert timed == ["slow", "large", "quick"]
    assert reset == [1]
    assert quickest("kernel", ["only"], print) == "only"
    assert len(timed) == 3
    with pytest.raises(RuntimeError, match="no tile of the triton engine fits this device"):
        quickest("other", ["large", "large"], print)


def test_a_kernel_the_device_has_no_room_for_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_no_room", lambda: (MemoryError,))

    def run(choice: object) -> None:
        raise MemoryError("too much shared memory")

    took, error = tiles._time(run, Tile(16, 16, 16))
    assert took == float("inf")
    assert isinstance(error, MemoryError)


def test_the_environment_fixes_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_FASTEST", {"kernel": 0})
    monkeypatch.setattr(tiles, "_time", lambda *_: pytest.fail("timed"))
    for value, wanted in (("0", "a"), ("1", "b"), ("7", "c")):
        monkeypatch.setenv(tiles.FIXED, value)
        assert quickest("kernel", ["a", "b", "c"], print) == wanted
    monkeypatch.setenv(tiles.FIXED, "-1")
    with pytest.raises(ValueError, match="DECONE_TRITON_TILES must be 0 or a larger whole number, got '-1'; unset it"):
        quickest("kernel", ["a", "b"], print)


@given(st.integers(1, 40), st.sampled_from([1, 4, 16]), st.booleans(), st.booleans(), st.integers(0, 5))
def test_every_position_lies_in_one_tile(N: int, rows: int, sort: bool, split: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    key = torch.rand(N, generator=draw) if sort else None
    rare = torch.rand(N, generator=draw) < 0.2 * seed if split else None
    position, filled, common = arrange_tiles(N, rows, key, rare)
    assert position.numel() % rows == 0
    assert position.numel() < N + rows + (rows if split else 0)
    assert sorted(position[filled].tolist()) == list(range(N))
    assert position[~filled].eq(N).all()
    classes = [position] if rare is None else [position[: common * rows], position[common * rows :]]
    for index, positions in enumerate(classes):
        positions = positions[positions < N]
        assert rare is None or rare[positions].eq(bool(index)).all()
        assert positions.equal(
            positions[key[positions].argsort(stable=True)] if key is not None else positions.sort().values
        )


@given(st.integers(1, 6), st.integers(1, 40), st.sampled_from([1, 4, 16]), st.integers(0, 9))
def test_every_live_column_is_listed_once(G: int, V: int, group: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    live = (torch.rand(G, V, generator=draw) < torch.rand((), generator=draw)).to(torch.int8)
    common = seed % (G + 1)
    result = list_live_columns(live, group, common)
    for tile, (columns, count) in enumerate(zip(result.of_tile, result.counts, strict=True)):
        assert columns[:count].tolist() == live[tile].nonzero().flatten().tolist()
    assert sorted(result.by_life.tolist()) == list(range(V))
    lives = live.sum(0)[result.by_life]
    assert (lives[:-1] >= lives[1:]).all()  # dead columns last, in groups that no program works on
    for k, group_columns in enumerate(result.by_life.split(group)):
        expected = live[:, group_columns].any(1).nonzero().flatten()
        assert result.tiles[k, : result.reach[k]].tolist() == expected.tolist()
        assert result.common[k] == (expected < common).sum()
    assert torch.equal(result.common, list_live_columns(live, group, torch.tensor(common)).common)


def join(logits: torch.Tensor, target: torch.Tensor | None, filled: torch.Tensor) -> LogSum:
    """What tiles of three columns would hand over, with the greatest's 1 left out."""
    tiles = torch.stack(logits.split(3, 1))
    top = tiles.amax(2)
    below = tiles.scatter(2, tiles.argmax(2, keepdim=True), -torch.inf)
    beyond = (below - torch.where(top == -torch.inf, 0.0, top)[..., None]).double().exp().sum(2).float()
    return log_sum(top, beyond, filled, target)


def test_an_offset_costs_no_digits() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(20, 12, generator=draw), torch.randn(20, generator=draw)
    filled = torch.arange(20) < 18
    logits, target = ((t * 64).round() / 64 + 4096.0 for t in (logits, target))  # exact in float32 with the offset
    total = join(logits, target, filled)
    complete = torch.cat((logits, target[:, None]), 1).double().logsumexp(1)
    torch.testing.assert_close(total.less(target).double()[:18], (complete - target)[:18], rtol=3e-7, atol=3e-7)
    torch.testing.assert_close(total.value().double()[:18], complete[:18])
    assert not total.value()[18:].any()
    assert not total.select(slice(18, 20)).remainder.any()


def test_the_others_are_seen_beside_a_giant() -> None:
    logits = torch.tensor([[20.0, 0.0, 1.0, 0.5, -3.0, 2.0], [0.0, 1.0, -1.0, 2.0, -2.0, 20.0]])
    for target in (None, torch.tensor([3.0, -1.0]), torch.tensor([40.0, 40.0])):
        total = join(logits, target, torch.ones(2, dtype=torch.bool))
        complete = logits.double() if target is None else torch.cat((logits, target[:, None]), 1).double()
        giant = complete.amax(1, keepdim=True)
        exact = torch.where(complete == giant, 0.0, (complete - giant).exp()).sum(1).log1p()
        torch.testing.assert_close(total.remainder.double(), exact, rtol=1e-6, atol=0)


def test_ties_and_rows_that_keep_nothing() -> None:
    logits = torch.tensor([[1.0, 1.0, -torch.inf, 1.0, 0.0, 1.0], [-torch.inf] * 6])
    total = join(logits, None, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(total.value(), logits.logsumexp(1))
    with_target = join(logits, torch.tensor([1.0, 5.0]), torch.ones(2, dtype=torch.bool))
    assert with_target.less(torch.tensor([1.0, 5.0]))[1] == 0
