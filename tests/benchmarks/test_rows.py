"""Ratios are taken within a round, rows describe themselves, tables and pictures leave nothing blank."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from benchmarks.engines_bench import bench, memory, plot, rows
from benchmarks.engines_bench.clocks import Lap, interleave
from benchmarks.engines_bench.ways import PRODUCT, Way
from benchmarks.engines_bench.workloads import WORKLOADS, Workload, generate

TINY = replace(WORKLOADS["W1"], B=1, T=32, H=16, V=128)
PLAN = bench.Plan(
    rounds=2,
    threads=1,
    losses=["ce", "threshold:0", "threshold:1"],
    margins=[0.0, 1.0],
    engines=["chunked", "triton"],
    peers=["dense", "quack"],
    forms=["naive"],
    passes=["step", "forward"],
    memory=False,
    states=None,
)


def laps(*seconds: float) -> dict[int, Lap]:
    return {turn: Lap(busy, busy) for turn, busy in enumerate(seconds)}


def test_ratios_are_those_of_the_same_round() -> None:
    """The machine halves its speed after each round; the ratio does not move. A round one did not run in is left."""
    dense = laps(1.0, 2.0, 4.0)
    assert rows.ratios(laps(0.5, 1.0, 2.0), dense) == [0.5, 0.5, 0.5]
    assert rows.ratios({2: Lap(8.0, 8.0)}, dense) == [2.0, 2.0, 2.0]
    assert rows.ratios({5: Lap(8.0, 8.0)}, dense) is None


def test_the_best_peer_is_chosen_round_by_round_and_is_never_ours() -> None:
    found = {
        Way("dense", "ce"): laps(3.0, 2.0),
        Way("lce-tuned", "ce"): laps(2.0, 3.0),
        Way("chunked", "ce"): laps(1.0, 1.0),
        Way(PRODUCT, "ce"): laps(0.5, 0.5),
    }
    assert [lap.busy for lap in rows.best(found).values()] == [2.0, 2.0]
    row = rows.timed(Way("chunked", "ce"), found, True, {})
    assert row["of_best_peer"] == [0.5, 0.5, 0.5]
    assert row["of_floor"] == pytest.approx([2 / 3] * 3)


def test_the_floor_counts_live_columns_in_two_of_three_products() -> None:
    live = {"1": 0.25}
    assert rows.products(Way("chunked", "threshold:1"), True, live) == 1.5
    assert rows.products(Way("chunked", "threshold:1"), False, live) == 1.0
    assert rows.products(Way("chunked", "agg"), True, live) == 3.0


def test_rounds_are_interleaved_and_a_failure_stops_nobody_else() -> None:
    seen: list[str] = []

    def fail() -> None:
        raise RuntimeError("out of memory\nand a long trace")

    steps = {"a": lambda: seen.append("a"), "bad": fail, "slow": lambda: seen.append("slow")}
    found, failed = interleave(steps, lambda name: 3 if name == "slow" else 1, 4, "cpu", lambda text: None)
    assert seen == ["a", "slow", "a", "slow", "a", "a", "a", "slow"]  # the first of each warms up
    assert sorted(found) == ["a", "slow"]
    assert sorted(found["slow"]) == [0, 3]
    assert failed == {"bad": "RuntimeError: out of memory"}


def test_a_run_gives_rows_that_say_all_about_themselves(tmp_path: Path) -> None:
    made = bench.run(PLAN, TINY)
    file = tmp_path / "deep" / "engines.jsonl"
    rows.append(made, file)
    rows.append(made[:1], file)
    assert len(file.read_text().splitlines()) == len(made) + 1
    for row in rows.load(file):
        assert {"workload", "states", "versions", "machine", "date", "commit", "load", "threads"} <= row.keys()
        assert ("reason" in row) is (row["way"] in ("triton", "quack"))
        if "reason" not in row and row["way"] != PRODUCT:
            assert row["zeros_differ"] == 0
            assert max(row["errors"].values()) < 1e-5
            assert len(row["of_dense"]) == 3
            assert row["laps"] in (1, 2)
    pairs = {(row["way"], row["loss"]) for row in made}
    assert ("naive", "threshold:1") in pairs
    assert ("naive", "threshold:0") not in pairs  # its cost is the same
    table = rows.markdown(rows.latest(rows.load(file)))
    assert "quack (ce): it has no CPU path" in table
    assert "dense (less work)" in table
    assert all(len(line.split("|")) == 15 for line in table.splitlines() if line.startswith("|"))
    drawn = ElementTree.fromstring(plot.picture(rows.latest(made)))
    assert len(drawn.findall(".//{*}polyline")) == 3  # by margin: torch, ours plain, ours thresholded


def test_a_later_failure_does_not_hide_a_time() -> None:
    row = {"way": "dense", "loss": "ce", "pass": "step", "workload": {}, "threads": 1, "machine": {}}
    time, newer, failure = row | {"milliseconds": 1}, row | {"milliseconds": 2}, row | {"reason": "full"}
    assert rows.latest([time, newer, failure]) == [newer]
    assert rows.latest([failure, time]) == [time]


def test_a_workload_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = bench.run(PLAN, WORKLOADS["W3"])
    assert "CUDA" in row["reason"]
    assert json.loads(json.dumps(row)) == row
    assert "CUDA" in rows.markdown([row])
    with pytest.raises(ValueError, match="measure first"):
        plot.picture([row])


def test_an_untrained_workload_asks_one_question() -> None:
    found = PLAN.ways(replace(TINY, states="untrained"))
    assert {way.loss for way in found} == {"ce", "threshold:1"}
    assert not any(way.name == "naive" for way in found)


def test_what_does_not_fit_is_not_tried() -> None:
    huge = Workload("huge", 2**10, 2**10, 8, 2**20)
    assert "GiB" in str(memory.too_large(Way("dense", "ce"), huge))
    assert memory.too_large(Way("chunked", "ce"), huge) is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux' high-water mark")
def test_memory_is_that_of_the_step_alone(tmp_path: Path) -> None:
    """Whole logits, their log-softmax and its gradient: between two and four times tokens x vocabulary."""
    load = replace(TINY, T=256, V=16384)
    memory.save(generate(load), tmp_path / "inputs.safetensors")
    peak = memory.peak_in_child(Way("dense", "ce"), tmp_path / "inputs.safetensors", 1)
    assert isinstance(peak, float)
    assert 2 < peak * memory.MEBI / (4 * load.N * load.V) < 4
