"""Which rows of a table a repair changes."""

import re
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from decone.data.corpora import read_text


def last_rows(size: int, share: float) -> Int64[Tensor, " M"]:
    """Rows from an index on, where the order of ids stands for frequency: the last `share` of them.

    Raises:
        ValueError: the share is not above 0 and at most 1, or leaves no row.

    Example:
        >>> last_rows(10, 0.25).tolist()
        [8, 9]
    """
    if not 0 < share <= 1 or int(share * size) == 0:
        raise ValueError(f"the last {share:g} of {size:,} rows are none; give a share above 0 and at most 1: last:0.2")
    return torch.arange(size - int(share * size), size)


def read_ids(path: Path, size: int) -> Int64[Tensor, " M"]:
    """Reads a list of ids, separated by anything that is white or a comma; "#" begins a remark.

    Returns:
        The different ids, rising.

    Raises:
        ValueError: the file cannot be read, or holds something else than ids of a table with `size` rows.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}; --rows takes all, rare, last:SHARE, or a file with ids")
    ids: set[int] = set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        for word in re.split(r"[\s,]+", line.partition("#")[0].strip()):
            if word and not re.fullmatch(r"[0-9]{1,12}", word):
                raise ValueError(f"{path}, line {number}: {word[:40]!r} is no id; write whole numbers from 0 on")
            if word and int(word) >= size:
                raise ValueError(
                    f"{path}, line {number}: id {word} is beyond the table's {size:,} rows (0 to {size - 1})"
                )
            if word:
                ids.add(int(word))
    if not ids:
        raise ValueError(f"{path} lists no id; write one per line")
    return torch.tensor(sorted(ids))
