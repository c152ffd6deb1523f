"""Finds the input and the output table of a model without loading the rest of it or running any of its code."""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from decone.files.folder import inside, read_object, read_text
from decone.files.foreign import plain, quoted
from decone.files.safetensors import FileTable, Weights, open_weights
from decone.models.families import FAMILIES, UNKNOWN, Config, Family
from decone.models.load import RUN_CONFIG, first_line
from decone.models.tables import Kind, ModelTables, same_table
from decone.models.tokenizer_files import VOCABULARY_FILES, FolderTokenizer, read_tokenizer

# Of a hub only these are fetched; subfolders hold the same model in other formats.
DOWNLOADED = ("*.json", "*.jinja", *VOCABULARY_FILES, "*.safetensors")
NOT_DOWNLOADED = ("*/*", "consolidated*", "adapter_*", "optimizer*")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_WITH_HEAD = re.compile(r".*(ForMaskedLM|ForCausalLM|LMHead|ForConditionalGeneration|MTModel|EncoderDecoderModel)")
NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "decoder", "text_encoder")
TOKEN_MODULES = ("StaticEmbedding", "WordEmbeddings", "Transformer")  # of sentence-transformers; they read token ids
_STATIC = Family("encoder", ("embedding.weight", "embeddings", "emb_layer.weight"), ())
_RUN = Family("run", ("embedding.weight",), ("untied.weight",))

INPUT_LIKE = ("emb", "wte", "tok", "shared")  # parts of names that only input tables have
SAME_VOCABULARY = 0.9  # tables whose row counts differ by more do not belong together
DOMINANT = 2  # a vocabulary must be this many times longer than any other dimension to be recognised by its length
_INPUTS = tuple(dict.fromkeys(name for family in FAMILIES.values() for name in family.embedding))
_OUTPUTS = tuple(dict.fromkeys(name for family in FAMILIES.values() for name in family.head))
Shapes = Mapping[str, tuple[int, ...]]


def find_tables(name: str, embedding: str | None = None, head: str | None = None) -> ModelTables:
    """Finds the tables of a model; of its weights only headers, biases and, to compare them, the tables are read.

    Args:
        name: a folder with config.json and safetensors, a .safetensors file, a run of decone, or a name at the
            Hugging Face hub.
        embedding: name of the input table's tensor, where it is not found or the wrong one is.
        head: likewise of the output table.

    Raises:
        ValueError: there is no such model, its weights are pickled, damaged or outside its folder, or it is
            not clear which tensor is which.
    """
    path = Path(name)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # a name too long, a zero byte, a folder that may not be entered
        raise ValueError(f"{plain(name)} cannot be opened; name a model's folder or file") from None
    if is_file:
        return _file(name, path, embedding, head)
    folder = path if is_folder else _downloaded(name)
    module = _module_folder(name, folder, is_folder)
    if module != folder and is_folder:
        name = str(module)
    folder = module
    config = read_object(folder, "config.json")
    if config is not None and config.get("model_type") != "model2vec":
        return _model(name, folder, config, embedding, head)
    settings = read_text(folder, RUN_CONFIG, 1 << 20)
    if settings is not None:
        return _run(name, folder, settings, embedding, head)
    if inside(folder, "model.safetensors").is_file() and open_weights(folder).shapes.keys() & {*_STATIC.embedding}:
        return _static(name, folder, embedding)
    if inside(folder, "adapter_config.json").is_file():
        raise ValueError(f"{name} is an adapter; merge it into its model first: merge_and_unload, then save_pretrained")
    raise ValueError(
        f"{name} holds neither a decone run (config.toml) nor a Hugging Face model (config.json); "
        "name the folder that does, or a .safetensors file"
    )


def _model(name: str, folder: Path, outer: dict[str, Any], embedding: str | None, head: str | None) -> ModelTables:
    """A folder of transformers."""
    config = _language_config(outer)
    keys = [key for key in (outer.get("model_type"), config.get("model_type")) if isinstance(key, str)]
    family = next((FAMILIES[key] for key in keys if key in FAMILIES), None)
    label = keys[0] if keys and re.fullmatch(r"[\w.-]{1,64}", keys[0]) else "unknown"
    row, notes = family or UNKNOWN, []
    if family is None:
        notes.append(
            f"the family {label} is not known: its tables were told by names and shapes, and a scale of its logits "
            "would not be seen"
        )
    elif family.note:
        notes.append(family.note)
    rows = config.get("vocab_size")
    names = embedding, head, rows if isinstance(rows, int) else None
    table, output, tied, bias = _read(folder, family, partial(_configured_tied, config, family), notes, *names)
    has_output = tied or output is not None
    kind = _kind(config, row, has_output, notes)
    tokens = read_tokenizer(folder, outer)
    return ModelTables(
        name=name,
        family=label,
        kind=kind,
        embedding=table,
        head=output,
        tied=tied,
        bias=bias if has_output else None,
        softcap=row.cap(config) if has_output else None,
        state_scale=row.state_scale(config) if has_output else 1.0,
        logit_scale=row.logit_scale(config) if has_output else 1.0,
        tokenizer=tokens.tokenizer,
        special=frozenset(index for index in tokens.special if index < table.shape[0]),
        notes=[*notes, *tokens.notes],
        names=tokens.vocabulary,
        chat=tokens.chat,
    )


def _module_folder(name: str, folder: Path, local: bool) -> Path:
    """The folder of the module that reads tokens in a model of sentence-transformers; any other folder itself."""
    if inside(folder, "config.json").is_file() or not inside(folder, "modules.json").is_file():
        return folder
    try:
        modules = json.loads(read_text(folder, "modules.json") or "")
        path = next(module["path"] for module in modules if module["type"].rsplit(".", 1)[-1] in TOKEN_MODULES)
        if not path:
            return folder
        module_folder = inside(folder, path)
    except (LookupError, TypeError, AttributeError, RecursionError, StopIteration, json.JSONDecodeError):
        return folder
    if not local and re.fullmatch(r"[\w./-]+", path):
        _downloaded(name, path)
    return module_folder


def _static(name: str, folder: Path, embedding: str | None) -> ModelTables:
    """Embeddings without a model around them: of model2vec, or of a module of sentence-transformers."""
    tokens = read_tokenizer(folder)
    shapes, notes = open_weights(folder).shapes, tokens.notes
    table, *_ = _read(folder, _STATIC, lambda biased: False, notes, embedding)
    if "weights" in shapes:
        notes.append("each row is multiplied by a weight of its token; the table is shown as stored")
    if "mapping" in shapes:  # of quantised vocabularies
        notes.append("several tokens share a row by the tensor mapping, so rows have no tokens of their own")
        tokens = FolderTokenizer()
    return ModelTables(
        name,
        "static",
        "encoder",
        table,
        tokenizer=tokens.tokenizer,
        special=tokens.special,
        notes=notes,
        names=tokens.vocabulary,
    )


def _run(name: str, folder: Path, settings: str, embedding: str | None, head: str | None) -> ModelTables:
    """A run of decone; its configuration is the resolved one, so every key is there."""
    try:
        config = tomllib.loads(settings)
        low_resource, configured = config["language"]["low_resource"], config["model"]["tied"]
        copies = 2 if float(low_resource) > 0 else 1
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        reason = plain(error)
        raise ValueError(
            f"{folder / RUN_CONFIG} is not that of a decone run ({reason}); name the run's folder"
        ) from None
    if not inside(folder, "model.safetensors").is_file():
        raise ValueError(f"the run {name} is not done; finish it with: decone train --resume {name}")
    notes: list[str] = []
    table, output, tied, _ = _read(folder, _RUN, lambda biased: configured is True, notes, embedding, head)
    tokens = read_tokenizer(folder)
    tokenizer = tokens.tokenizer
    if tokenizer is not None and copies * tokenizer.get_vocab_size() != table.shape[0]:
        raise ValueError(
            f"{name} has {table.shape[0]} rows for {copies} x {tokenizer.get_vocab_size()} tokens; its files do not "
            "belong together, so train the run again"
        )
    notes += tokens.notes
    special = tokens.special
    return ModelTables(
        name, "decone", "run", table, output, tied, tokenizer=tokenizer, copies=copies, special=special, notes=notes
    )


def _file(name: str, path: Path, embedding: str | None, head: str | None) -> ModelTables:
    """Bare tensors."""
    notes: list[str] = []
    table, output, tied, bias = _read(path, None, lambda biased: False, notes, embedding, head)
    notes.append(
        "a file alone has no configuration and no tokenizer: whether the output is tied, and its scale, are unknown, "
        "and tokens have no names; name the model's folder to see them"
    )
    return ModelTables(name, "unknown", "tables", table, output, tied, bias, notes=notes)


def _read(
    path: Path,
    family: Family | None,
    configured: Callable[[bool], bool],
    notes: list[str],
    embedding: str | None = None,
    head: str | None = None,
    rows: int | None = None,
) -> tuple[FileTable, FileTable | None, bool, Float[Tensor, " V"] | None]:
    """Input table, output table where it is one of its own, true where they are tied, and bias of the output.

    `configured` is told whether there is a bias, and says whether the configuration ties the tables.
    """
    weights = open_weights(path)
    names = match_tables(weights.shapes, family, rows, embedding, head)
    table, output = _equally_long(weights, *names, notes)
    bias = _bias(weights, family or UNKNOWN, output or table, names[1])
    tied = _tied(table, output, configured(bias is not None), head is not None, notes)
    return table, None if tied else output, tied, bias


def _downloaded(name: str, subfolder: str = "") -> Path:
    """The folder of a model at a hub; fetched the first time, without its code."""
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"there is no file or folder {plain(name)}, and a name at a hub is like owner/model")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(f'there is no folder {name}; to fetch it from a hub: pip install "decone[hf]"') from None
    try:
        if subfolder:
            return Path(snapshot_download(name, allow_patterns=[f"{subfolder}/{pattern}" for pattern in DOWNLOADED]))
        return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED), ignore_patterns=list(NOT_DOWNLOADED)))
    except Exception as error:  # those of the hub, of its network library, of the disk
        reason = plain(first_line(error))
        raise ValueError(
            f"there is no folder {name}, and it cannot be fetched from the hub ({reason}); check name and network"
        ) from None


def _language_config(outer: dict[str, Any]) -> Config:
    """A configuration with that of its language model unpacked.

    On tying the outer one decides, unless it joins two complete models.
    """
    config = outer
    for key in NESTED * 2:  # some nest twice
        if isinstance(inner := config.get(key), dict):
            config = {**config, **inner, key: None}
    if isinstance(tied := outer.get("tie_word_embeddings"), bool) and not isinstance(outer.get("decoder"), dict):
        config = {**config, "tie_word_embeddings": tied}
    return {**config, "architectures": outer.get("architectures")}


def _architecture(config: Config) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _configured_tied(config: Config, family: Family | None, biased: bool) -> bool:
    """True for a model that uses its input table as output where no head is stored."""
    architecture = _architecture(config)
    has_head = _WITH_HEAD.fullmatch(architecture) is not None
    tied = config.get("tie_word_embeddings")
    if not isinstance(tied, bool):
        tied = has_head if family is None else family.tied
    if family is None or family.kind == "masked":  # such models mostly come without a head, whatever they say
        return tied and (has_head or biased)
    return tied and family.kind != "encoder" and not architecture.endswith("EncoderModel")


def _kind(config: Config, family: Family, has_output: bool, notes: list[str]) -> Kind:
    architecture = _architecture(config)
    if not has_output:
        if _WITH_HEAD.fullmatch(architecture):
            notes.append("no output table is stored though the model is said to have one; only the input table is seen")
        return "encoder"
    if architecture.endswith("EncoderDecoderModel"):
        return "seq2seq"
    if "ForMaskedLM" in architecture:
        return "masked"
    if "ForCausalLM" in architecture or (architecture.endswith("LMHeadModel") and family.kind != "seq2seq"):
        return "causal"
    return "seq2seq" if family is UNKNOWN and config.get("is_encoder_decoder") is True else family.kind


def _equally_long(
    weights: Weights, embedding: str, head: str | None, notes: list[str]
) -> tuple[FileTable, FileTable | None]:
    """Both tables with the same number of rows; a few that only one of them has are left out."""
    table, output = weights.table(embedding), None if head is None else weights.table(head)
    if output is None:
        return table, None
    rows, longest = sorted((table.shape[0], output.shape[0]))
    if rows < SAME_VOCABULARY * longest:
        raise ValueError(
            f"{plain(embedding)} {list(table.shape)} and {plain(output.name)} {list(output.shape)} are not tables of "
            "the same tokens; pass --embedding NAME and --head NAME"
        )
    if rows < longest:
        longer = table if table.shape[0] == longest else output
        notes.append(f"{plain(longer.name)} has {longest - rows} rows more than the other table; they are left out")
    if table.shape[1] != output.shape[1]:
        notes.append(f"input rows have width {table.shape[1]}, output rows {output.shape[1]}")
    return table.first(rows), output.first(rows)


def _bias(weights: Weights, family: Family, table: FileTable, head: str | None) -> Float[Tensor, " V"] | None:
    V = table.shape[0]
    vectors = {name: shape for name, shape in weights.shapes.items() if shape in ((V,), (1, V))}
    beside_head = () if head is None else (head.removesuffix("weight") + "bias",)
    name = match_name((*beside_head, *family.bias), vectors)
    return None if name is None else weights.vector(name)


def _tied(table: FileTable, head: FileTable | None, configured: bool, explicit: bool, notes: list[str]) -> bool:
    """True for one table in both roles: what is stored decides before what the configuration says."""
    if head is None or explicit:
        return head is None and (configured or explicit)
    same = same_table(table, head)
    if same and not configured:
        notes.append("the output table is stored apart but equals the input table, so they count as tied")
    elif configured and not same:
        notes.append("the configuration ties the tables, but the output table that is stored differs; both are seen")
    return same


def match_name(patterns: Iterable[str], shapes: Shapes, rows: int | None = None) -> str | None:
    """The tensor that one of some names fits, with or without a prefix; the least nested if several do.

    Args:
        patterns: names, likeliest first.
        shapes: of the tensors that may be meant.
        rows: preferred where there are several.

    Raises:
        ValueError: several fit equally well.

    Example:
        >>> match_name(["wte.weight"], {"transformer.wte.weight": (9, 2), "transformer.wpe.weight": (4, 2)})
        'transformer.wte.weight'
    """
    for pattern in patterns:
        fitting = [name for name in shapes if name == pattern or name.endswith(f".{pattern}")]
        fitting = [name for name in fitting if shapes[name][0] == rows] or fitting
        least = min((name.count(".") for name in fitting), default=0)
        nearest = [name for name in fitting if name.count(".") == least]
        if len(nearest) > 1:
            raise ValueError(_unclear(nearest, shapes))
        if nearest:
            return nearest[0]
    return None


def match_tables(
    shapes: Shapes, family: Family | None, rows: int | None, embedding: str | None = None, head: str | None = None
) -> tuple[str, str | None]:
    """Names of the input and of the output table; of the latter None where no tensor of its own is stored.

    Args:
        shapes: of all tensors, [V, H] of the tables.
        family: None for a model that is not in the list of families; then shapes decide.
        rows: V as the configuration has it.
        embedding: name the user gave, which overrides everything.
        head: likewise.

    Raises:
        ValueError: there is no such tensor, or several may be meant.
    """
    for requested, option in ((embedding, "--embedding"), (head, "--head")):
        if requested is not None and requested not in shapes:
            names = [name for name in shapes if len(name) < 200][:10000]
            near = _with_shapes(difflib.get_close_matches(requested, names, n=3, cutoff=0.3), shapes)
            raise ValueError(f"there is no tensor {quoted(requested)} for {option}; near to it: {near}")
    tables = {name: shape for name, shape in shapes.items() if len(shape) == 2 and 0 not in shape}
    if family is not None:
        embedding = embedding or match_name(family.embedding, tables, rows)
        head = head or match_name(family.head, tables, rows)
    elif embedding is not None:
        head = head or match_name(_OUTPUTS, {name: tables[name] for name in _as_long_as(embedding, tables)})
    else:
        embedding, output = _match_shapes(tables, rows)
        head = head or output
    embedding = embedding or head  # of two names for one tensor some savers keep that of the head
    if embedding is None:
        raise ValueError(_unclear(_longest(tables), shapes))
    return embedding, None if head == embedding else head


def _match_shapes(tables: Shapes, rows: int | None) -> tuple[str | None, str | None]:
    """The tables of an unknown model: those with V rows, or, where V is not known, with the most."""
    certain = rows is not None and any(shape[0] == rows for shape in tables.values())
    V = rows if certain and rows is not None else max((shape[0] for shape in tables.values()), default=0)
    candidates = {name: shape for name, shape in tables.items() if shape[0] == V}
    if match_name(_INPUTS, candidates) is None and match_name(_OUTPUTS, candidates) is not None:
        # Some have input rows without an output, for images for example.
        candidates = {name: shape for name, shape in tables.items() if V <= shape[0] <= V / SAME_VOCABULARY}
    embedding = match_name(_INPUTS, candidates)
    lengths = [size for name, shape in tables.items() for size in (shape if name not in candidates else shape[1:])]
    if embedding is None and not certain and max(lengths, default=0) * DOMINANT > V:
        return None, None
    inputs = [name for name in candidates if any(stem in name.lower() for stem in INPUT_LIKE)] or list(candidates)
    embedding = embedding or (inputs[0] if len(inputs) == 1 else None)
    outputs = {name: shape for name, shape in candidates.items() if name != embedding and name not in inputs}
    if embedding is None or len(outputs) < 2:
        return embedding, next(iter(outputs), None)
    head = match_name(_OUTPUTS, outputs)
    return (None, None) if head is None else (embedding, head)


def _as_long_as(name: str, tables: Shapes) -> list[str]:
    return [peer for peer, shape in tables.items() if name in tables and shape[0] == tables[name][0]]


def _longest(tables: Shapes) -> list[str]:
    return sorted(tables, key=lambda name: -tables[name][0])[:6]


def _unclear(names: list[str], shapes: Shapes) -> str:
    return (
        f"cannot tell which tensor is the vocabulary's table (candidates: {_with_shapes(names, shapes)}); "
        "pass --embedding NAME, --head NAME"
    )


def _with_shapes(names: Iterable[str], shapes: Shapes) -> str:
    return ", ".join(f"{plain(name, 80)} {list(shapes[name])}" for name in names) or "none"
