"""Where a model keeps its embedding and its head, found without loading the rest of it or running any of its code."""

import re
import tomllib
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from decone.files.folder import inside, read_object, read_text
from decone.files.foreign import plain
from decone.files.safetensors import FileTable, Weights, open_weights
from decone.models.families import FAMILIES, Config, Family
from decone.models.load import RUN_CONFIG, first_line
from decone.models.placing import SAME_VOCABULARY, named, place
from decone.models.tables import Kind, ModelTables, same_table
from decone.models.tokenizer_files import read_tokenizer

# Of a hub only these are fetched; subfolders hold the same model in other formats.
DOWNLOADED = ("*.json", "merges.txt", "vocab.txt", "*.safetensors")
LEFT_OUT = ("*/*", "consolidated*", "adapter_*", "optimizer*")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_WORDS = re.compile(r".*(ForMaskedLM|ForCausalLM|LMHead|ForConditionalGeneration|MTModel|EncoderDecoderModel)")
NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "decoder", "text_encoder")
_UNKNOWN = Family("causal", (), (), softcap=("final_logit_softcapping", None))
_RUN = Family("run", ("embedding.weight",), ("untied.weight",))


def find_tables(name: str, embedding: str | None = None, head: str | None = None) -> ModelTables:
    """Finds the tables of a model; of its weights only headers, biases and, to compare them, the tables are read.

    Args:
        name: a folder with config.json and safetensors, a .safetensors file, a run of decone, or a name at the
            Hugging Face hub.
        embedding: name of the input table's tensor, where it cannot be told or is told wrongly.
        head: likewise of the output table.

    Raises:
        ValueError: there is no such model, its weights are pickled, damaged or outside its folder, or it cannot be
            told which tensor is which.
    """
    path = Path(name)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # a name too long, a zero byte, a folder that may not be entered
        raise ValueError(f"{plain(name)} cannot be opened; name a model's folder or file") from None
    if is_file:
        return _file(name, path, embedding, head)
    folder = path if is_folder else _downloaded(name)
    config = read_object(folder, "config.json")
    if config is not None:
        return _model(name, folder, config, embedding, head)
    settings = read_text(folder, RUN_CONFIG, 1 << 20)
    if settings is not None:
        return _run(name, folder, settings, embedding, head)
    if inside(folder, "adapter_config.json").is_file():
        raise ValueError(f"{name} is an adapter; merge it into its model first: merge_and_unload, then save_pretrained")
    raise ValueError(
        f"{name} holds neither a decone run (config.toml) nor a Hugging Face model (config.json); "
        "name the folder that does, or a .safetensors file"
    )


def _model(name: str, folder: Path, whole: dict[str, Any], embedding: str | None, head: str | None) -> ModelTables:
    """A folder of transformers."""
    config = _settled(whole)
    keys = [key for key in (whole.get("model_type"), config.get("model_type")) if isinstance(key, str)]
    family = next((FAMILIES[key] for key in keys if key in FAMILIES), None)
    called = keys[0] if keys and re.fullmatch(r"[\w.-]{1,64}", keys[0]) else "unknown"
    row, notes = family or _UNKNOWN, []
    if family is None:
        notes.append(
            f"the family {called} is not known: its tables were told by names and shapes, and a scale of its logits "
            "would not be seen"
        )
    elif family.note:
        notes.append(family.note)
    scale, softcap = row.scale(config), row.cap(config)
    weights, rows = open_weights(folder), config.get("vocab_size")
    found, other = place(weights.shapes, family, rows if isinstance(rows, int) else None, embedding, head)
    table, output = _fitted(weights, found, other, notes)
    bias = _bias(weights, row, output or table, other)
    tied = _tied(table, output, _says_tied(config, family, bias is not None), head is not None, notes)
    output = None if tied else output
    kind = _kind(config, row, tied or output is not None, notes)
    tokenizer, special, about = read_tokenizer(folder)
    speaks = tied or output is not None
    return ModelTables(
        name=name,
        family=called,
        kind=kind,
        embedding=table,
        head=output,
        tied=tied,
        bias=bias if speaks else None,
        softcap=softcap if speaks else None,
        logit_scale=scale if speaks else 1.0,
        tokenizer=tokenizer,
        special=frozenset(index for index in special if index < table.shape[0]),
        notes=[*notes, *about],
    )


def _run(name: str, folder: Path, settings: str, embedding: str | None, head: str | None) -> ModelTables:
    """A run of decone; its configuration is the resolved one, so every key is there."""
    try:
        config = tomllib.loads(settings)
        low, says = config["language"]["low_resource"], config["model"]["tied"]
        copies = 2 if float(low) > 0 else 1
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        reason = plain(error)
        raise ValueError(
            f"{folder / RUN_CONFIG} is not that of a decone run ({reason}); name the run's folder"
        ) from None
    if not inside(folder, "model.safetensors").is_file():
        raise ValueError(f"the run {name} is not done; finish it with: decone train --resume {name}")
    weights, notes = open_weights(folder), list[str]()
    found, other = place(weights.shapes, _RUN, None, embedding, head)
    table, output = _fitted(weights, found, other, notes)
    tied = _tied(table, output, says is True, head is not None, notes)
    tokenizer, special, about = read_tokenizer(folder)
    if tokenizer is not None and copies * tokenizer.get_vocab_size() != table.shape[0]:
        raise ValueError(
            f"{name} has {table.shape[0]} rows for {copies} x {tokenizer.get_vocab_size()} tokens; its files do not "
            "belong together, so train the run again"
        )
    output = None if tied else output
    notes += about
    return ModelTables(name, "decone", "run", table, output, tied, None, None, 1.0, tokenizer, copies, special, notes)


def _file(name: str, path: Path, embedding: str | None, head: str | None) -> ModelTables:
    """Bare tensors."""
    weights, notes = open_weights(path), list[str]()
    found, other = place(weights.shapes, None, None, embedding, head)
    table, output = _fitted(weights, found, other, notes)
    bias = _bias(weights, _UNKNOWN, output or table, other)
    tied = _tied(table, output, False, head is not None, notes)
    notes.append(
        "a file alone has no configuration and no tokenizer: whether the output is tied, and its scale, are unknown, "
        "and tokens have no names; name the model's folder to see them"
    )
    return ModelTables(name, "unknown", "tables", table, None if tied else output, tied, bias, notes=notes)


def _downloaded(name: str) -> Path:
    """The folder of a model at a hub; fetched the first time, without its code."""
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"there is no file or folder {plain(name)}, and a name at a hub is like owner/model")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(f'there is no folder {name}; to fetch it from a hub: pip install "decone[hf]"') from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED), ignore_patterns=list(LEFT_OUT)))
    except Exception as error:  # those of the hub, of its network library, of the disk
        reason = plain(first_line(error))
        raise ValueError(
            f"there is no folder {name}, and it cannot be fetched from the hub ({reason}); check name and network"
        ) from None


def _settled(whole: dict[str, Any]) -> Config:
    """A configuration with that of its language model unpacked.

    On tying the outer one has the word, unless it joins two whole models.
    """
    config = whole
    for key in NESTED * 2:  # some nest twice
        if isinstance(inner := config.get(key), dict):
            config = {**config, **inner, key: None}
    if isinstance(outer := whole.get("tie_word_embeddings"), bool) and not isinstance(whole.get("decoder"), dict):
        config = {**config, "tie_word_embeddings": outer}
    return {**config, "architectures": whole.get("architectures")}


def _architecture(config: Config) -> str:
    listed = config.get("architectures")
    return str(listed[0]) if isinstance(listed, list) and listed else ""


def _says_tied(config: Config, family: Family | None, biased: bool) -> bool:
    """Whether a model without a stored head uses its input table as one."""
    architecture = _architecture(config)
    words = _WORDS.fullmatch(architecture) is not None
    says = config.get("tie_word_embeddings")
    if not isinstance(says, bool):
        says = words if family is None else family.tied
    if family is None or family.kind == "masked":  # such models mostly come without a head, whatever they say
        return says and (words or biased)
    return says and family.kind != "encoder" and not architecture.endswith("EncoderModel")


def _kind(config: Config, family: Family, speaks: bool, notes: list[str]) -> Kind:
    architecture = _architecture(config)
    if not speaks:
        if _WORDS.fullmatch(architecture):
            notes.append("no output table is stored though the model is said to have one; only the input table is seen")
        return "encoder"
    if architecture.endswith("EncoderDecoderModel"):
        return "seq2seq"
    if "ForMaskedLM" in architecture:
        return "masked"
    if "ForCausalLM" in architecture or (architecture.endswith("LMHeadModel") and family.kind != "seq2seq"):
        return "causal"
    return "seq2seq" if family is _UNKNOWN and config.get("is_encoder_decoder") is True else family.kind


def _fitted(weights: Weights, found: str, other: str | None, notes: list[str]) -> tuple[FileTable, FileTable | None]:
    """Both tables with the same number of rows; a few that only one of them has are left out."""
    table, output = weights.table(found), None if other is None else weights.table(other)
    if output is None:
        return table, None
    few, many = sorted((table.shape[0], output.shape[0]))
    if few < SAME_VOCABULARY * many:
        raise ValueError(
            f"{plain(found)} {list(table.shape)} and {plain(output.name)} {list(output.shape)} are not tables of the "
            "same tokens; pass --embedding NAME and --head NAME"
        )
    if few < many:
        longer = table if table.shape[0] == many else output
        notes.append(f"{plain(longer.name)} has {many - few} rows more than the other table; they are left out")
    if table.shape[1] != output.shape[1]:
        notes.append(f"input rows have width {table.shape[1]}, output rows {output.shape[1]}")
    return table.first(few), output.first(few)


def _bias(weights: Weights, family: Family, table: FileTable, head: str | None) -> Float[Tensor, " V"] | None:
    V = table.shape[0]
    vectors = {name: shape for name, shape in weights.shapes.items() if shape in ((V,), (1, V))}
    own = () if head is None else (head.removesuffix("weight") + "bias",)
    found = named((*own, *family.bias), vectors)
    return None if found is None else weights.vector(found)


def _tied(table: FileTable, head: FileTable | None, says: bool, chosen: bool, notes: list[str]) -> bool:
    """Whether both tables are one: what is stored decides before what the configuration says."""
    if head is None or chosen:
        return head is None and (says or chosen)
    same = same_table(table, head)
    if same and not says:
        notes.append("the output table is stored apart but equals the input table, so they count as tied")
    elif says and not same:
        notes.append("the configuration ties the tables, but the output table that is stored differs; both are seen")
    return same
