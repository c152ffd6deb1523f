"""What a scan of a table takes, weights only: seconds and memory by number of rows.

    python benchmarks/scan.py [--rows 32000,64000,128000,256000] [--width 2304] [--out results/benchmarks/scan.json]

Tables are made from a seed, bfloat16, in a temporary safetensors file (2 x rows x width bytes); each is measured in a
process of its own. Memory is the peak of that process with everything in it, Python and torch included. On a machine
that other programs share, use one thread and look at processor seconds: they do not stretch, and threads that wait for
each other do not count as work.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from decone.diagnosis.scan import scan
from decone.training.machine import provenance

NAME = "embedding.weight"
ROWS = 8192  # made at once


def make(file: Path, rows: int, width: int) -> None:
    """Writes a table with a mean direction, falling singular values and shorter rare rows."""
    header = {NAME: {"dtype": "BF16", "shape": [rows, width], "data_offsets": [0, 2 * rows * width]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(0)
    stretch = torch.linspace(1.0, 0.3, width) * 0.05
    lean = 0.02 * torch.randn(width, generator=generator)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, rows, ROWS):
            ids = torch.arange(start, min(start + ROWS, rows))
            block = torch.randn(len(ids), width, generator=generator) * stretch + lean
            block *= (1 - 0.4 * ids / rows)[:, None]
            out.write(block.bfloat16().view(torch.uint8).numpy().tobytes())


def measure(file: Path) -> dict[str, Any]:
    """Scans the table in this process."""
    before, begun, spent = peak(), time.perf_counter(), time.process_time()
    result = scan(str(file))
    facts = result.tables["embedding"]
    return {
        "seconds": time.perf_counter() - begun,
        "processor_seconds": time.process_time() - spent,
        "peak_bytes": peak(),
        "peak_bytes_before": before,
        "isotropy": facts.isotropy["all"],
        "effective_rank": facts.spectrum.effective_rank,
    }


def peak() -> int:
    """Largest memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage says there includes the process that started this one
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def show(found: list[dict[str, Any]]) -> None:
    table = Table("rows", "width", "seconds", "processor seconds", "peak memory")
    for row in found:
        table.add_row(
            f"{row['rows']:,}",
            f"{row['width']:,}",
            f"{row['seconds']:.1f}",
            f"{row['processor_seconds']:.1f}",
            f"{row['peak_bytes'] / 1e9:.2f} GB",
        )
    Console().print(table)


def plot(found: list[dict[str, Any]]) -> str:
    """Seconds and processor seconds against rows, as an SVG that needs no library."""
    width, height, left, low = 560, 300, 60, 250
    right, high = width - 20, 30
    most_rows, most_seconds = max(row["rows"] for row in found), max(row["processor_seconds"] for row in found)
    ceiling = 20 * -(-most_seconds // 20)

    def across(rows: int) -> float:
        return left + (right - left) * rows / most_rows

    def up(seconds: float) -> float:
        return low - (low - high) * seconds / ceiling

    text = 'font-family="system-ui, sans-serif" font-size="12" fill="#57606a"'
    parts = [f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for seconds in range(0, int(ceiling) + 1, 20):
        parts.append(f'<path d="M{left} {up(seconds):.1f}H{right}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{left - 8}" y="{up(seconds) + 4:.1f}" text-anchor="end" {text}>{seconds} s</text>')
    for row in found:
        x = across(row["rows"])
        parts.append(f'<text x="{x:.1f}" y="{low + 18}" text-anchor="middle" {text}>{row["rows"] // 1000}k</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{height - 8}" text-anchor="middle" {text}>rows</text>')
    for index, (key, colour, name) in enumerate(
        (("seconds", "#0969da", "seconds on the clock"), ("processor_seconds", "#bc4c00", "processor seconds"))
    ):
        points = [(across(row["rows"]), up(row[key])) for row in found]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        parts.append(
            f'<text x="{left + 14}" y="{high + 16 * index}" {text}><tspan fill="{colour}">●</tspan> {name}</text>'
        )
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">\n{body}\n</svg>\n'


def main(
    rows: str = "32000,64000,128000,256000",
    width: Annotated[int, typer.Option(min=1)] = 2304,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    folder: Annotated[Path | None, typer.Option(help="where the tables are made; default is the system's")] = None,
    out: Path = Path("results/benchmarks/scan.json"),
    picture: Annotated[Path, typer.Option("--plot", help="SVG of the result")] = Path("docs/scan-time.svg"),
    draw: Annotated[bool, typer.Option("--draw", help="Only draw what --out holds")] = False,
    file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measures tables of all sizes; prints and writes the result."""
    if file is not None:
        print(json.dumps(measure(file)))
        return
    if draw:
        picture.write_text(plot(json.loads(out.read_text(encoding="utf-8"))["rows"]), encoding="utf-8")
        return
    found = []
    limits = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    for size in [int(part) for part in rows.split(",")]:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            table = Path(place) / "table.safetensors"
            make(table, size, width)
            load = os.getloadavg()[0]  # programs that shared the machine in the minute before; Unix only
            command = [sys.executable, __file__, "--file", str(table)]
            answer = subprocess.run(command, env=os.environ | limits, check=True, stdout=subprocess.PIPE, text=True)
        found.append({"rows": size, "width": width, **json.loads(answer.stdout), "load": load})
        show(found[-1:])
    show(found)
    document = {"what": "scan, weights only", "dtype": "bfloat16", "threads": threads, "rows": found, **provenance()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    picture.write_text(plot(found), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
