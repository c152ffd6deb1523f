"""`decone scan`: what is wrong with a model, in words, numbers and a page."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from decone.cli.console import (
    CHECKS,
    Counts,
    Device,
    Embedding,
    Head,
    Json,
    Quiet,
    print_json,
    print_result,
    say,
    stages,
    write,
)

# Metrics of tables by the names in their files: importing them takes seconds.
METRICS = [
    name.replace("_", "-")
    for file in sorted((Path(__file__).parents[1] / "diagnosis" / "table_metrics").glob("[!_]*.py"))
    for name in re.findall(r'^    name = "(\w+)"$', file.read_text(encoding="utf-8"), re.MULTILINE)
]
LIMITS = f"Limits to fail at (exit 1), e.g. cone=0.2,undertrained=50. Names: {', '.join((*CHECKS, *METRICS))}."


def scan(
    model: Annotated[
        str, typer.Argument(help="A decone run, a Hugging Face model (folder or hub name), or a .safetensors file.")
    ] = "",
    text: Annotated[Path | None, typer.Option(help="UTF-8 text: run the model on it.")] = None,
    counts: Counts = None,
    against: Annotated[str | None, typer.Option(help="Model of the same vocabulary to compare with.")] = None,
    blame: Annotated[bool, typer.Option("--blame", help="Tell pull from push in every row's gradient.")] = False,
    words: Annotated[list[Path] | None, typer.Option(help="Word pairs with similarities; may be repeated.")] = None,
    limits: Annotated[str, typer.Option("--check", help=LIMITS)] = "",
    embedding: Embedding = None,
    head: Head = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most tokens of the text that are scored.")] = None,
    prompts: Annotated[int, typer.Option(min=0, help="Continuations per way of decoding.")] = 20,
    folder: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write to.", show_default="runs/scan-MODEL")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of samples of rows and of drawn text.")] = 0,
    device: Device = "auto",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the result and end.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Scan a model: the geometry of its tables, rows never trained, and with --text what it does.

    Reads the tables alone and no code of the model. Writes report.html, scan.json and card.md.
    """
    from decone.diagnosis import scan as scanning
    from decone.diagnosis.checks import parse_limits
    from decone.diagnosis.result import ScanResult
    from decone.document import html, markdown, terminal
    from decone.files.atomic import write_text
    from decone.files.failure import make_folder
    from decone.training.run import require_creatable

    if schema:
        print_json(ScanResult.model_json_schema(by_alias=True))
        return
    if not model:
        raise ValueError("name a model: the folder of a run or of a Hugging Face model, or a .safetensors file")
    checks = parse_limits(limits)
    target = folder or Path("runs") / f"scan-{_plain(model)}"
    require_creatable(target)
    with stages(quiet) as progress:
        result = scanning.scan(
            model,
            text=text,
            counts=counts,
            blame=blame,
            words=words or (),
            against=against,
            embedding=embedding,
            head=head,
            device=device,
            seed=seed,
            prompts=prompts,
            limit=limit,
            checks=checks,
            progress=progress,
        )
    make_folder(target)
    content = result.to_dict()
    write_text(target / "scan.json", json.dumps(content, indent=1) + "\n")  # ASCII: strangers' characters are escaped
    document = result.to_document()
    write_text(target / "card.md", markdown.render(document))
    page = html.save(target / "report.html", document)
    if as_json:
        print_json(content)
    else:
        write(terminal.render(document))
    say(f"the page is {page}")
    if not all(check.passed for check in result.checks):
        raise typer.Exit(1)


def counts(
    text: Annotated[str, typer.Argument(help="UTF-8 file, a folder of such files, or the name of a corpus.")],
    tokenizer: Annotated[str, typer.Option(help="A decone run or a Hugging Face model (folder or hub name).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new file: lines of token or id, tab, count.")],
    as_json: Json = False,
) -> None:
    """Count the tokens of a model in a text: the file that every --counts reads."""
    from decone.diagnosis.text_counts import count_text

    print_result(count_text(text, tokenizer, out), as_json)


def _plain(model: str) -> str:
    """A model's name as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model).name or model).strip("-.")[:100] or "model"
