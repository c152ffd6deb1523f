"""Results: one JSON line for each way, pass and workload, which says all about itself, and a table of them."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .clocks import Lap
from .ways import PRODUCT, Way

Row = dict[str, Any]
Laps = dict[int, Lap]

BASES = {"of_dense": Way("dense", "ce"), "of_tuned": Way("lce-tuned", "ce"), "of_chunked": Way("chunked", "ce")}
LESS = "less work asked of it: plain cross-entropy"


def spread(values: Sequence[float]) -> list[float]:
    """Median, least, largest."""
    return [statistics.median(values), min(values), max(values)]


def ratios(mine: Laps, base: Laps) -> list[float] | None:
    """Median and range of the ratios within a round; None without a round that both ran in."""
    found = [mine[turn].busy / base[turn].busy for turn in mine if turn in base]
    return spread(found) if found else None


def best(laps: dict[Way, Laps]) -> Laps:
    """The fastest other package of each round; what is written down naively in torch counts among them."""
    found: Laps = {}
    for way, mine in laps.items():
        for turn, lap in mine.items():
            if way.peer and (turn not in found or lap.busy < found[turn].busy):
                found[turn] = lap
    return found


def products(way: Way, learning: bool, live: dict[str, float]) -> float:
    """Large products that a pass needs at least, in units of one: the two of the gradient touch live rows alone.

    Args:
        way: whose loss it is.
        learning: with gradients.
        live: share of live columns by margin, targets sorted.
    """
    if not learning or way.name == PRODUCT:
        return 1.0
    return 1.0 + 2.0 * (1.0 if way.margin is None else live[f"{way.margin:g}"])


def timed(way: Way, laps: dict[Way, Laps], learning: bool, live: dict[str, float]) -> Row:
    """The times of one way beside those of others, in the same rounds."""
    mine = laps[way]
    row: Row = {
        "milliseconds": [1e3 * value for value in spread([lap.busy for lap in mine.values()])],
        "wall_milliseconds": [1e3 * value for value in spread([lap.wall for lap in mine.values()])],
        "laps": len(mine),
    }
    for name, base in BASES.items():
        row[name] = ratios(mine, laps.get(base, {}))
    row["of_best_peer"] = ratios(mine, best(laps))
    floor = ratios(mine, laps.get(Way(PRODUCT, "ce"), {}))
    need = products(way, learning, live)
    row["of_floor"] = None if floor is None else [value / need for value in floor]
    return row


def append(rows: Iterable[Row], file: Path) -> None:
    """Adds rows to a file of JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row) + "\n")


def load(file: Path) -> list[Row]:
    """All rows of a file of JSON lines."""
    if not file.is_file():
        raise ValueError(f"no results at {file}; measure first, or name a file with --out")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def latest(rows: Iterable[Row]) -> list[Row]:
    """The last row of each way, pass, shape and machine; a later one that failed does not hide an earlier time."""
    found: dict[str, Row] = {}
    for row in rows:
        key = json.dumps([row["way"], row["loss"], row["pass"], row["workload"], row["threads"], row["machine"]])
        if "reason" not in row or "reason" in found.get(key, row):
            found.pop(key, None)  # so that it takes the last place
            found[key] = row
    return list(found.values())


def markdown(rows: Iterable[Row]) -> str:
    """A table for each workload: time, ratios within a round as median [least, largest], memory, errors."""
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(json.dumps([row["workload"], row["threads"], row["machine"]]), []).append(row)
    return "\n".join(_table(group) for group in tables.values()).rstrip()


def _table(rows: list[Row]) -> str:
    head: tuple[str, ...] = (
        "way",
        "loss",
        "pass",
        "ms",
        "of dense",
        "of tuned torch",
        "of best peer",
        "of our plain",
        "of floor",
    )
    head += ("peak MiB", "of dense", "worst error: loss, dH, dW", "zeros that differ")
    lines = [_about(rows[-1]), ""]
    if any("reason" not in row for row in rows):
        lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    more = any(row["loss"] != "ce" for row in rows)
    for row in [row for row in rows if "reason" not in row]:
        less = " (less work)" if more and row.get("note") else ""
        cells = [row["way"] + less, row["loss"], row["pass"], _milliseconds(row)]
        cells += [_range(row[key]) for key in ("of_dense", "of_tuned", "of_best_peer", "of_chunked", "of_floor")]
        peak, share = row.get("peak_mebibytes"), row.get("peak_of_dense")
        cells += ["" if peak is None else f"{peak:.0f}", "" if share is None else f"{share:.3f}"]
        errors = row.get("errors") or {}
        cells += [", ".join(f"{error:.0e}" for error in errors.values()), _zeros(row)]
        lines.append("| " + " | ".join(cells) + " |")
    reasons: dict[str, dict[str, list[str]]] = {}
    for row in [row for row in rows if "reason" in row]:
        losses = reasons.setdefault(row["reason"], {}).setdefault(row["way"], [])
        losses += [row["loss"]] * (row["loss"] not in losses)
    random = sorted({f"{row['way']} ({row['loss']})" for row in rows if row.get("repeats") is False})
    lines += ["", f"Not the same bits in two runs: {', '.join(random)}."] if random else [""]
    for reason, those in reasons.items():
        names = "; ".join(f"{way} ({', '.join(losses)})" for way, losses in those.items())
        lines.append(f"Does not run: {names}: {reason}.")
    return "\n".join(lines) + "\n"


def _about(row: Row) -> str:
    load, states, machine = row["workload"], row.get("states"), row["machine"]
    if states is None:
        return f"**{load['name']}**: N {load['N']:,}, H {load['H']:,}, V {load['V']:,}, {load['dtype']}"
    where = machine["accelerator"] if load["device"] == "cuda" else machine["processor"]
    shares = states["margins"].items()
    live = ", ".join(f"{m}: {share['live_sorted']:.3f} ({share['live_stream']:.3f})" for m, share in shares)
    return (
        f"**{load['name']}**{', a tenth of it' if load['quick'] else ''}: N {load['N']:,} ({load['B']} x {load['T']}), "
        f"H {load['H']:,}, V {load['V']:,}, {load['dtype']}, {load['states']}, seed {load['seed']}; mean negative "
        f"log-likelihood {states['nll_mean']:.2f}; live columns by margin, sorted (in the order of the text): {live}. "
        f"{where}, {row['threads']} thread(s), load {row['load'][0]:.1f} to {row['load'][1]:.1f}, "
        f"torch {row['versions']['torch']}, commit {row['commit']}, {row['date']}; medians of {row['rounds']} rounds, "
        f"{row['clock']} time."
    )


def _milliseconds(row: Row) -> str:
    middle = row["milliseconds"][0]
    return f"{middle:.0f}" if middle >= 100 else f"{middle:.3g}"


def _zeros(row: Row) -> str:
    return f"{row['zeros_differ']} of {row['zeros']:,}" if row.get("zeros") else str(row.get("zeros_differ", ""))


def _range(value: list[float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"
