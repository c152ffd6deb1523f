"""Which tile is taken: the quickest that fits, found once."""

import pytest
import torch

from decone.engines.triton import tiles
from decone.engines.triton.tiles import Tile, candidates, quickest


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
