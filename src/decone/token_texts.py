"""Which token stands in which row of a table."""

from collections.abc import Iterable

from tokenizers import Tokenizer

from decone.models.tables import ModelTables


def token_texts(model_tables: ModelTables) -> list[str]:
    """The token of every row, as it stands in the vocabulary; foreign strings of any length.

    Returns:
        One string per row of the output table: "<padding N>" for row N without a token, "<row N>" for all rows
        without a tokenizer, and with " (LR)" at the end in the second copy of a run's vocabulary.

    Example:
        >>> import torch
        >>> from tokenizers import models
        >>> from decone.models.tables import MemoryTable
        >>> tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
        >>> table = MemoryTable("weight", torch.zeros(5, 2))
        >>> token_texts(ModelTables("model", "decone", "run", table, tied=True, tokenizer=tokenizer, copies=2))
        ['a', 'b', 'a (LR)', 'b (LR)', '<padding 4>']
    """
    size = model_tables.output.shape[0]
    if model_tables.tokenizer is None:
        return [f"<row {row}>" for row in range(size)]
    texts = [f"<padding {row}>" for row in range(size)]
    vocabulary = token_strings(model_tables.tokenizer)
    for copy in range(model_tables.copies):
        mark = " (LR)" if copy else ""
        for row, token in zip(_rows(model_tables, vocabulary, copy), vocabulary.values(), strict=True):
            if row < size:
                texts[row] = token + mark
    return texts


def token_rows(model_tables: ModelTables, ids: Iterable[int]) -> list[int]:
    """Rows of ids of the tokenizer, in all copies of the vocabulary; ids beyond the table have none."""
    known = list(ids)
    rows = {row for copy in range(model_tables.copies) for row in _rows(model_tables, known, copy)}
    return sorted(row for row in rows if 0 <= row < model_tables.output.shape[0])


def token_strings(tokenizer: Tokenizer) -> dict[int, str]:
    """The token of every id of a tokenizer, added tokens included."""
    strings: dict[int, str] = {}
    for token, index in tokenizer.get_vocab(with_added_tokens=True).items():
        strings.setdefault(index, token)
    return strings


def special_ids(model_tables: ModelTables) -> set[int]:
    """Ids that the model or the tokenizer itself marks as special: beginning, padding, mask and the like."""
    if model_tables.tokenizer is None:
        return set(model_tables.special)
    added = model_tables.tokenizer.get_added_tokens_decoder()
    return {index for index, token in added.items() if token.special} | model_tables.special


def _rows(model_tables: ModelTables, ids: Iterable[int], copy: int) -> list[int]:
    """Where ids stand in one copy; a vocabulary that is copied has no gaps."""
    assert model_tables.tokenizer is not None
    start = copy * model_tables.tokenizer.get_vocab_size() if copy else 0
    return [start + index for index in ids]
