"""`decone repair` and `decone lexicon`: tables mended by deltas that can be shown, applied and undone.

A repair of `decone.repair.methods` is a command of its name; its options are the fields of its class. `decone grow` and
`decone trim` add tokens to a model or take them out, as a new folder.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperGroup

from decone.cli.console import (
    INITIALISATIONS,
    Counts,
    Device,
    DryRun,
    Embedding,
    Head,
    Json,
    Leave,
    LinkFiles,
    Match,
    NewFolder,
    Quiet,
    Special,
    print_result,
    say,
    stages,
)
from decone.data.lexicons import FORMATS
from decone.repair.methods.base import find_method, method_names

if TYPE_CHECKING:
    from decone.repair.methods.base import Setting

HEAD = """Mend a table of a model without training it.

\b
"""
TAIL = """\
decone repair show DELTA [--json]                        what a delta changes, and where it comes from
decone repair apply MODEL DELTA --out FOLDER [--link]    a new checkpoint with the repaired table
decone repair undo FOLDER DELTA --out FOLDER [--link]    the original again, to the last byte

A repair writes a delta and leaves the model as it is.
"""

COMMON = ("[--dry-run]", "[--tokens N]", "[--seed S]", "[--json]", "[--quiet]")  # of every repair

Answering = Callable[[Callable[..., None]], Callable[..., None]]
Delta = Annotated[Path, typer.Argument(help="A delta that a repair wrote.")]
Link = Annotated[bool, typer.Option("--link", help="Link other files instead of copying: both share their bytes.")]
Folder = Annotated[Path, typer.Option("--out", "-o", help="The new folder; it must not exist.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The delta to write, a .safetensors file.")]
Tokens = Annotated[int, typer.Option(min=0, help="Changed rows shown one by one.")]
RepairDryRun = Annotated[bool, typer.Option("--dry-run", help="Measure and show, write nothing.")]
INIT = (
    "How rows are made: pieces (mean of the rows of what the old tokenizer cuts the token into), mean (of all trained "
    "rows), sample (drawn from a normal with their mean and covariance), neighbours (mean of rows near the pieces), "
    "like=TOKEN (the row of that one), definitions (rebuilt from a --lexicon)."
)
MATCH = (
    "word: words are not found inside longer words; letters, marks and scripts without spaces are. anywhere: all are."
)
SPECIAL = "New tokens that decoding can leave out: those like <|…|>, <…> or […], all, or none."
LITERAL = "Ġword, ▁word and ##word are those letters, not the spelling of the vocabulary."
TEXT = "UTF-8 text whose tokens stay; may be repeated. It is cut exactly as before."
Model = Annotated[str, typer.Argument(help="A Hugging Face model: folder or hub name.")]


def group(answering: Answering) -> typer.Typer:
    """Builds the commands; `answering` makes exit codes and sentences of exceptions."""

    class RepairGroup(TyperGroup):
        """Commands of all repairs, built when they are called, and those on deltas.

        Typer has its own copy of click, whose types are private.
        """

        def list_commands(self, ctx: Any) -> list[str]:
            return [*method_names(), *super().list_commands(ctx)]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in method_names():
                return super().get_command(ctx, cmd_name)
            app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            app.command(name=cmd_name)(answering(_repair_command(cmd_name)))
            return typer.main.get_command(app)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            self.help = HEAD + "".join(map(_usage, method_names())) + TAIL
            super().format_help(ctx, formatter)

    app = typer.Typer(
        cls=RepairGroup,
        help=HEAD,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    for command in (show, apply, undo):
        app.command(name=command.__name__)(answering(command))
    return app


def _repair_command(name: str) -> Callable[..., None]:
    """Builds the command of a repair: an option per setting, and those that all repairs have."""
    method = find_method(name)

    def command(**arguments: Any) -> None:
        from decone.repair.api import repair_with

        as_json, quiet = arguments.pop("as_json"), arguments.pop("quiet")
        if arguments["out"] is None and not arguments["dry_run"]:
            raise ValueError("say where the delta goes, --out NAME.safetensors, or measure only with --dry-run")
        with stages(quiet) as progress, _nothing_written():
            report = repair_with(name, progress=progress, **arguments)
        print_result(report, as_json)

    settings = [_parameter(entry.name, entry.type, entry.setting, entry.default) for entry in method.settings_of()]
    parameters = [
        _keyword("model", Annotated[str, typer.Argument(help=method.model)]),
        *(parameter for parameter in settings if parameter.default is inspect.Parameter.empty),
        _keyword("out", Out, None),
        *(parameter for parameter in settings if parameter.default is not inspect.Parameter.empty),
        _keyword("tokens", Tokens, 10),
        _parameter("seed", int, method.seed, 0),
        _keyword("dry_run", RepairDryRun, False),
        _keyword("as_json", Json, False),
        _keyword("quiet", Quiet, False),
    ]
    command.__doc__ = inspect.getdoc(method)
    vars(command)["__signature__"] = inspect.Signature(parameters)
    return command


def _usage(name: str) -> str:
    """Lines of the help of `decone repair` on one repair: its first sentence, and its options."""
    method, options = find_method(name), list[str]()
    for entry in method.settings_of():
        flag, choices = _flags(entry.name, entry.setting)[0], get_args(entry.type)
        value = "|".join(choices) if get_origin(entry.type) is Literal else flag.removeprefix("--").upper()
        option = flag if entry.type is bool else f"{flag} {entry.setting.metavar or value}"
        options.append(option if entry.default is MISSING else f"[{option}]")
    options = [option.replace(" ", "\0") for option in (*options, *COMMON)]  # a value stays on the line of its option
    paragraphs = (str(method.__doc__).partition("\n")[0], " ".join(options))
    lines = [line for text in paragraphs for line in textwrap.wrap(text, 105, break_on_hyphens=False)]
    first = f"decone repair {name} MODEL --out DELTA.safetensors\n"
    return first + "".join(f"       {line}\n" for line in lines).replace("\0", " ")


def show(delta: Delta, as_json: Json = False) -> None:
    """Show what a delta changes, how it was made, and for which model."""
    from decone.repair import view
    from decone.repair.api import read_delta

    facts = read_delta(delta).facts
    print_result(facts, as_json, view.delta_document(facts, delta))


def apply(
    model: Annotated[str, typer.Argument(help="The model that the delta was made from.")],
    delta: Delta,
    out: Folder,
    link: Link = False,
    as_json: Json = False,
) -> None:
    """Write a new checkpoint with the repaired table; the model stays as it is."""
    from decone.repair.api import apply_delta

    print_result(apply_delta(model, delta, out, link=link), as_json)


def undo(
    repaired: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder that apply wrote.")],
    delta: Delta,
    out: Folder,
    link: Link = False,
    as_json: Json = False,
) -> None:
    """Write the original checkpoint again, to the last byte."""
    from decone.repair.api import undo_delta

    print_result(undo_delta(repaired, delta, out, link=link), as_json)


def lexicon(
    model: Annotated[str, typer.Argument(help="A Hugging Face model (folder or hub name), or a decone run.")],
    lexicon: Annotated[list[Path], typer.Argument(help="File, or WordNet's folder; earlier ones go first.")],
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}; auto looks at the content.")] = "auto",
    language: Annotated[str, typer.Option(help="Of Wiktionary: the code of the entries wanted, or all.")] = "en",
    case: Annotated[str, typer.Option(help="auto, exact, or fold: also words that differ in case.")] = "auto",
    senses: Annotated[str, typer.Option(help="all of a word, or the first.")] = "all",
    forms: Annotated[str, typer.Option(help="Senses like 'plural of X': follow, keep or skip.")] = "follow",
    inflections: Annotated[bool, typer.Option("--inflections", help="Undo English suffixes.")] = False,
    numbers: Annotated[bool, typer.Option("--numbers", help="Spell out numbers without a definition.")] = False,
    pieces: Annotated[bool, typer.Option("--pieces", help="Define word pieces as parts of words.")] = False,
    counts: Counts = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file to write the report to.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Align the tokens of a model with a lexicon, and report what is covered.

    Changes nothing; tells how far a repair by definitions can reach.
    """
    arguments = {name: value for name, value in locals().items() if name not in ("as_json", "quiet")}
    from decone.repair.api import lexicon_coverage

    with stages(quiet) as progress:
        report = lexicon_coverage(**arguments, progress=progress)
    if out is not None:
        say(f"the report is {out}")
    print_result(report, as_json)


def grow(
    model: Model,
    tokens: Annotated[str, typer.Argument(help="A file with one token per line, or the tokens, as covid,blog.")],
    out: NewFolder = None,
    init: Annotated[str, typer.Option(help=INIT, metavar="|".join((*INITIALISATIONS, "like=TOKEN")))] = "pieces",
    neighbours: Annotated[int, typer.Option(min=1, help="Rows for --init neighbours.")] = 10,
    lexicon: Annotated[list[Path] | None, typer.Option("--lexicon", "-l", help="For --init definitions.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting of definitions, key=value.")] = None,
    device: Device = "auto",
    text: Annotated[Path | None, typer.Option(help="UTF-8 text: compare the outputs before and after on it.")] = None,
    multiple: Annotated[int | None, typer.Option(min=1, help="Make the number of rows a multiple of this.")] = None,
    match: Annotated[Match, typer.Option(help=MATCH)] = "word",
    special: Annotated[Special, typer.Option(help=SPECIAL)] = "marks",
    literal: Annotated[bool, typer.Option("--literal", help=LITERAL)] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of --init sample and definitions.")] = 0,
    leave: Leave = None,
    embedding: Embedding = None,
    head: Head = None,
    link: LinkFiles = False,
    show: Annotated[int, typer.Option(min=0, help="New tokens shown one by one.")] = 10,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add tokens to a model; its old rows stay byte for byte, and it is never changed itself.

    New tokens take rows that no token has yet, and only then make the tables longer.
    """
    from decone.files.settings import parse_pairs
    from decone.repair.vocabulary.grow import grow

    _require_out(out, dry_run)
    with stages(quiet) as progress, _nothing_written():
        report = grow(
            model,
            tokens,
            None if dry_run else out,
            init=init,
            neighbours=neighbours,
            lexicon=lexicon or (),
            settings=parse_pairs(settings or [], example="solver=gradient"),
            device=device,
            multiple=multiple,
            match=match,
            special=special,
            literal=literal,
            seed=seed,
            text=text,
            leave=leave or (),
            embedding=embedding,
            head=head,
            link=link,
            show=show,
            progress=progress,
        )
    print_result(report, as_json)


def trim(
    model: Model,
    out: NewFolder = None,
    text: Annotated[list[Path] | None, typer.Option(help=TEXT)] = None,
    keep: Annotated[Path | None, typer.Option(help="Tokens that stay, one per line, as in the vocabulary.")] = None,
    unreachable: Annotated[bool, typer.Option("--unreachable", help="Drop only what no text leads to.")] = False,
    min_count: Annotated[int, typer.Option(min=1, help="How often a token must be in the texts.")] = 1,
    leave: Leave = None,
    embedding: Embedding = None,
    head: Head = None,
    link: LinkFiles = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take tokens out of a model; what stays keeps its rows byte for byte and gets new ids.

    Special and added tokens stay, and what spells others. The model itself is never changed.
    """
    from decone.repair.vocabulary.trim import trim

    _require_out(out, dry_run)
    with stages(quiet) as progress, _nothing_written():
        report = trim(
            model,
            None if dry_run else out,
            text=text or (),
            keep=keep,
            unreachable=unreachable,
            min_count=min_count,
            leave=leave or (),
            embedding=embedding,
            head=head,
            link=link,
            progress=progress,
        )
    print_result(report, as_json)


def _require_out(out: Path | None, dry_run: bool) -> None:
    if out is None and not dry_run:
        raise ValueError("say where the new model goes, --out FOLDER, or only look with --dry-run")


@contextmanager
def _nothing_written() -> Iterator[None]:
    """Answers Ctrl-C: a repair is written as a whole at its end, so there is nothing to go on from."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.args = ("stopped; nothing was written, and the same command begins anew",)
        raise


def _parameter(name: str, kind: Any, setting: "Setting", default: Any) -> inspect.Parameter:
    option = typer.Option(
        *_flags(name, setting),
        help=setting.help,
        min=setting.minimum,
        metavar=setting.metavar,
        show_default=True if setting.default is None else setting.default,
    )
    return _keyword(name, Annotated[kind, option], default)


def _flags(name: str, setting: "Setting") -> tuple[str, ...]:
    return setting.flags or (f"--{name.replace('_', '-')}",)


def _keyword(name: str, annotation: Any, default: Any = MISSING) -> inspect.Parameter:
    empty = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=empty)
