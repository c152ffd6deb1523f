"""Rows by name, against sorting by hand."""

import random
from pathlib import Path

import pytest
import torch
from tests.repair.definitions.worlds import WORDS, glosses, tokenizer

from decone.data.lexicons import Lexicon
from decone.repair.alignment.align import TokenAlignment, align
from decone.repair.row_selection import parse_rows, read_ids, select_defined_rows, select_rows, select_tokens


@pytest.fixture(scope="module")
def found() -> TokenAlignment:
    """40 words at the end of the vocabulary, of which 30 are defined."""
    made = tokenizer("bert")[0]
    defined = {word: gloss for place, (word, gloss) in enumerate(glosses().items()) if place % 4}
    return align(made, Lexicon.of(defined), made.get_vocab_size() + 3)


def counts(found: TokenAlignment, seed: int = 0) -> torch.Tensor:
    """Many equal ones, and a third zero."""
    draw = random.Random(seed)
    return torch.tensor([draw.choice((0, 0, 1, 2, 3, 3)) for _ in found.surfaces])


def by_hand(found: TokenAlignment, strategy: str, ratio: float, numbers: list[int]) -> list[int]:
    known = [id for id in found.entries if strategy != "task" or numbers[id] > 0]
    left = list(known)
    chosen = []
    for _ in range(int(ratio * len(known))):
        rarest = left[0]
        for id in left:
            if strategy == "index" or numbers[id] <= numbers[rarest]:
                rarest = id  # of equal ones the higher id
        chosen.append(rarest)
        left.remove(rarest)
    return sorted(chosen)


@pytest.mark.parametrize("strategy", ["index", "counts", "task"])
@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.2, 0.5, 0.99, 1.0])
def test_shares(found: TokenAlignment, strategy: str, ratio: float) -> None:
    numbers = counts(found)
    chosen = select_tokens(found, strategy, ratio, numbers).tolist()  # type: ignore[arg-type]
    assert chosen == by_hand(found, strategy, ratio, numbers.tolist())
    if ratio == 1:
        every = [id for id in found.entries if strategy != "task" or numbers[id]]
        assert chosen == every
        assert strategy == "task" or len(chosen) == 30
    if ratio == 0:
        assert chosen == []
    if strategy == "task":
        assert all(numbers[id] > 0 for id in chosen)


def test_a_task_s_rarest(found: TokenAlignment) -> None:
    numbers = torch.zeros(len(found.surfaces), dtype=torch.long)
    ids = found.defined_ids()
    numbers[ids[:10]] = torch.tensor([5, 1, 1, 9, 2, 7, 1, 3, 8, 6])
    assert select_tokens(found, "task", 0.2, numbers).tolist() == [ids[2], ids[6]]
    assert select_tokens(found, "counts", 0.1, numbers).tolist() == ids[-3:]  # zeros are rarer
    assert len(select_tokens(found, "task", 1.0, torch.zeros_like(numbers))) == 0  # nothing occurs


@pytest.mark.parametrize(
    ("strategy", "ratio", "numbers", "said"),
    [
        ("index", -0.1, None, "the share of tokens is -0.1; give one from 0 to 1"),
        ("index", 1.01, None, "give one from 0 to 1"),
        ("index", float("nan"), None, "give one from 0 to 1"),
        ("counts", 0.5, None, "by counts, tokens are chosen by counts of all 104 rows; give them"),
        ("task", 0.5, torch.ones(5, dtype=torch.long), "counts of all 104 rows; give them"),
        ("maxidx", 0.5, None, "choose tokens by one of index, counts, task, not 'maxidx'"),
    ],
)
def test_what_cannot_be(
    found: TokenAlignment, strategy: str, ratio: float, numbers: torch.Tensor | None, said: str
) -> None:
    with pytest.raises(ValueError) as error:
        # An unknown strategy is refused by the checked annotation in tests, and by the function elsewhere.
        getattr(select_tokens, "__wrapped__", select_tokens)(found, strategy, ratio, numbers)
    assert said in str(error.value)


def test_names_of_rows(found: TokenAlignment, tmp_path: Path) -> None:
    numbers, every = counts(found), found.defined_ids()
    file = tmp_path / "ids"
    file.write_text(f"{every[3]}, {every[1]} # twice\n{every[3]}\n")
    expected = {
        "all": every,
        "rare": every[-6:],
        "rare:0.1": every[-3:],
        "last:0.5": every[-15:],
        str(file): [every[1], every[3]],
    }
    for name, ids in expected.items():
        assert select_defined_rows(parse_rows(name, "doubtful"), found).tolist() == ids
    for name, strategy, ratio in (
        ("rare", "counts", 0.2),
        ("rare:0.5", "counts", 0.5),
        ("seen:0.5", "task", 0.5),
        ("last:0.5", "index", 0.5),
    ):
        assert select_defined_rows(parse_rows(name, "doubtful"), found, numbers).tolist() == by_hand(
            found, strategy, ratio, numbers.tolist()
        )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rarest", "no file rarest; --rows takes doubtful, rare, rare:SHARE"),
        ("last", "no file last"),
        ("seen:0.5", "by task, tokens are chosen by counts"),
        ("rare:x", "--rows 'rare:x' is no share; write e.g. rare:0.2"),
        ("rare:2", "give one from 0 to 1"),
        ("rare:0", "--rows rare:0 chooses none of 30 defined tokens"),
        ("last:nan", "give one from 0 to 1"),
        ("special", "2 (special), 5 (unused), 103 (padding); leave them out"),
        ("undefined", f"1 tokens have no definition in the lexicon: 61 '{WORDS[0]}'; leave them out or define them"),
        ("beyond", "line 1: id 104 is beyond the table's 104 rows"),
        ("negative", "'-1' is no id"),
        ("empty", "lists no id"),
    ],
)
def test_rows_that_cannot_be(found: TokenAlignment, name: str, said: str) -> None:
    word = next(id for id, surface in enumerate(found.surfaces) if surface.text == WORDS[0])
    files = {
        "special": "2 5 103 70",
        "undefined": f"{word} {word + 1}",
        "beyond": "104",
        "negative": "-1",
        "empty": "#",
    }
    for file, content in files.items():
        Path(file).write_text(content)
    with pytest.raises(ValueError) as error:
        select_defined_rows(parse_rows(name, "doubtful"), found)
    assert said in str(error.value)


def test_ids_of_a_file() -> None:
    Path("ids.txt").write_text("# rare ones\n7, 3\n3\t12 # again\r\n\n0\n")
    assert read_ids(parse_rows("ids.txt"), 13).tolist() == [0, 3, 7, 12]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n-2\n", "line 2: '-2' is no id"),
        ("a b", "line 1: 'a' is no id"),
        ("1\n13", "line 2: id 13 is beyond the table's 13 rows"),
        ("# nothing\n", "lists no id"),
        ("", "empty"),
        ("٣", "is no id"),
        ("9" * 40, "is no id"),
    ],
)
def test_other_files_are_refused(text: str, said: str) -> None:
    Path("ids.txt").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_ids(parse_rows("ids.txt"), 13)


def test_ranges_and_tokens() -> None:
    tokens = {"<|im_start|>": 3, "<|im_end|>": 9, "7": 1, "#": 2, "a,b": 4}
    Path("ids.txt").write_text("5-6 # a range\n<|im_end|>\n#\n# a remark\na,b\n7\n")
    assert read_ids(parse_rows("ids.txt"), 13, tokens).tolist() == [2, 4, 5, 6, 7, 9]
    expected = {"<|im_start|>,<|im_end|>": [3, 9], "0-2, 12,<|im_end|>": [0, 1, 2, 9, 12], "7": [7], "a,b": [4]}
    for text, ids in expected.items():
        assert select_rows(parse_rows(text), 13, tokens=tokens).tolist() == ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,<s>", "--rows 1,<s>: '<s>' is no id and no token of the model"),
        ("3-13", "id 13 is beyond the table's 13 rows"),
        ("0-999999999999", "id 999999999999 is beyond"),
        ("5-3", "5-3 ends before it begins; write 3-5"),
        (",", "--rows , lists no id"),
        ("<s>", "no file <s>; --rows takes rare"),
        ("x" * 5000, "no file xxx"),
    ],
)
def test_lists_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        select_rows(parse_rows(text), 13)
    assert message in str(error.value)
    assert len(str(error.value)) < 250


def test_no_file() -> None:
    with pytest.raises(ValueError, match="takes rare, rare:SHARE, seen:SHARE, last:SHARE, all, ids"):
        read_ids(parse_rows("rarest"), 13)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("last:0", "--rows last:0 chooses none of 10 rows; give a share above 0"),
        ("last:0.01", "chooses none of 10 rows"),
        ("last:-0.1", "give one from 0 to 1"),
        ("last:1.1", "give one from 0 to 1"),
        ("last:nan", "give one from 0 to 1"),
        ("last:x", "--rows 'last:x' is no share; write e.g. last:0.2"),
        ("seen:0.5", "by task, tokens are chosen by counts of all 10 rows; give them"),
        ("doubtful", "no file doubtful; --rows takes rare, rare:SHARE"),
    ],
)
def test_names_that_select_nothing(name: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        select_rows(parse_rows(name), 10)
    assert message in str(error.value)


def test_names_of_rows_of_a_table() -> None:
    counts = torch.tensor([5, 0, 3, 3, 9])
    Path("ids").write_text("4, 0")
    expected = {
        "all": [0, 1, 2, 3, 4],
        "last:1": [0, 1, 2, 3, 4],
        "last:0.4": [3, 4],
        "rare:0.4": [1, 3],
        "rare": [1],
        "seen:0.25": [3],
        "ids": [0, 4],
    }
    for name, ids in expected.items():
        assert select_rows(parse_rows(name), 5, counts).tolist() == ids
    assert select_rows(parse_rows("rare:0.4"), 5).tolist() == [3, 4]
