"""Counts of the tokens of a model in a text of any length, which `decone.count_text` writes as a file."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from decone.data import corpora
from decone.document.blocks import Document, DocumentModel, Facts, Section, Title
from decone.files.atomic import reserve, write_text
from decone.files.foreign import plain
from decone.frequencies import count_texts, rows_by_token, token_texts
from decone.models.find_tables import find_tables
from decone.vocab.counts import count_lines

CHUNK = 1 << 20  # characters in memory at once, about


class TextCounts(DocumentModel, BaseModel):
    """The file of counts of a text.

    Attributes:
        text: as it was named.
        tokenizer: the model whose tokenizer cut the text.
        out: the file.
        keys: of its lines; ids where tokens as they stand in the vocabulary would be ambiguous.
        tokens: occurrences counted.
        types: different tokens counted.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    tokenizer: str
    out: str
    keys: Literal["tokens", "ids"]
    tokens: int
    types: int

    def to_document(self) -> Document:
        """The size and the place of the file."""
        pairs = (("file", self.out), ("occurrences", f"{self.tokens:,}"), ("different tokens", f"{self.types:,}"))
        facts = Facts((*pairs, ("a line is", f"{self.keys.removesuffix('s')}, tab, count")))
        title = Title(f"Tokens of {plain(self.tokenizer)} in {plain(self.text)}", kicker="decone counts")
        return Document(title, (Section("counts", "Counts", (facts,)),))


def count_text(text: str | Path, tokenizer: str | os.PathLike[str], out: str | Path) -> TextCounts:
    r"""Counts the tokens of a model in a text and writes the file that every option `--counts` reads.

    Args:
        text: UTF-8 file, or a folder, all of whose files are read but hidden ones, or the name of a corpus. Files are
            read a chunk at a time and may be of any length.
        tokenizer: the model: a decone run, a folder or the hub name of a Hugging Face model.
        out: the new file.

    Raises:
        ValueError: the text or the model cannot be read, the model has no tokenizer, or something is at `out`.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import save_file
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> model = Path(tempfile.mkdtemp())
        >>> cutter = Tokenizer(models.WordLevel({"ice": 0, "sea": 1}, unk_token="ice"))
        >>> cutter.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> cutter.save(str(model / "tokenizer.json"))
        >>> _ = (model / "config.json").write_text('{"model_type": "gpt2"}')
        >>> save_file({"wte.weight": torch.zeros(2, 4)}, model / "model.safetensors")
        >>> text = Path(tempfile.mkdtemp()) / "text.txt"
        >>> _ = text.write_text("sea ice sea")
        >>> counts = count_text(text, model, text.with_name("counts.tsv"))
        >>> text.with_name("counts.tsv").read_text()
        'ice\t1\nsea\t2\n'
    """
    name, path = os.fspath(tokenizer), Path(out)
    if path.suffix == ".json":
        raise ValueError(
            f"{plain(path)} would hold lines of token, tab, count, which is no JSON; name it e.g. counts.tsv"
        )
    with reserve(path, Path(name)):
        model_tables = find_tables(name)
        counts = count_texts(model_tables, _texts(text))
        tokens, rows = token_texts(model_tables), rows_by_token(model_tables)
        counted = counts.nonzero().flatten().tolist()
        named = all(rows[tokens[row]] == row and not {"\n", "\0"} & set(tokens[row]) for row in counted)
        named = named and not all(tokens[row].isdecimal() for row in counted)
        write_text(path, count_lines(counts, tokens if named else None))
    return TextCounts(
        text=os.fspath(text),
        tokenizer=name,
        out=os.fspath(out),
        keys="tokens" if named else "ids",
        tokens=int(counts.sum()),
        types=len(counted),
    )


def _texts(text: str | Path) -> Iterator[str]:
    """A text in chunks that end at line ends where there are some."""
    path = Path(text)
    if text in corpora.NAMES and not path.exists():
        return iter([corpora.load(str(text)).text])
    if not path.exists():
        raise ValueError(f"no text {plain(path)}; name a UTF-8 file, a folder, or one of {', '.join(corpora.NAMES)}")
    files = [path]
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _is_hidden(file.relative_to(path))]
        if not files:
            raise ValueError(f"the folder {plain(path)} has no files; name one with UTF-8 texts")
    return (chunk for file in files for chunk in _chunks(file))


def _chunks(path: Path) -> Iterator[str]:
    buffer = ""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while chunk := file.read(CHUNK):
                if "\0" in chunk:
                    raise ValueError(f"{plain(path)} is a binary file; give plain text in UTF-8")
                buffer += chunk
                end = buffer.rfind("\n") + 1 or max(buffer.rfind(" "), 0)
                if not end and len(buffer) < 16 * CHUNK:
                    continue  # there may be an end of a word to come
                end = end or len(buffer)
                yield buffer[:end]
                buffer = buffer[end:]
    except UnicodeDecodeError:
        raise ValueError(f"{plain(path)} is not UTF-8; convert it, e.g. with iconv -t UTF-8") from None
    except OSError as error:
        raise ValueError(f"cannot read {plain(path)}: {error.strerror}; check its permissions") from None
    yield buffer


def _is_hidden(path: Path) -> bool:
    return any(name.startswith(".") for name in path.as_posix().split("/"))
