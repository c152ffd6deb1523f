"""Files of summaries: what is refused and where, how they are cut, and the true files where they are."""

import hashlib
import json
from pathlib import Path

import pytest

from decone.data.published import Published
from decone.training.tasks import summarization as summaries
from decone.training.tasks.summarization import SOURCES, Pair, SummarySet, parse

HERE = Path("file.jsonl")
GOOD = json.dumps({"id": "1", "article": " A.\u2028B. ", "highlights": "C .\nD ."}, ensure_ascii=False)


def test_each_set_has_its_keys() -> None:
    """Separators that a text may hold do not end a line; the summary becomes one line, the document keeps its own."""
    assert parse(SOURCES["cnn_dailymail"], f"{GOOD}\r\n{GOOD}\n", HERE) == [Pair("A.\u2028B.", "C . D .")] * 2
    line = json.dumps(
        {"fname": "dev_0", "dialogue": "#Person1#: Hi.\n#Person2#: Oh.", "summary": "They meet.", "topic": "x"}
    )
    assert parse(SOURCES["dialogsum"], line, HERE) == [Pair("#Person1#: Hi.\n#Person2#: Oh.", "They meet.")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON; get the file again"),
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no text under 'article'; get the file again"),
        ('{"article": "A."}', "no text under 'highlights'"),
        ('{"article": "A.", "highlights": ["B."]}', "no text under 'highlights'"),
        ('{"article": " ", "highlights": "B."}', "no text under 'article'"),
    ],
)
def test_a_damaged_line_is_named(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^file\.jsonl, line 2: {message}"):
        parse(SOURCES["cnn_dailymail"], f"{GOOD}\n{line}\n{GOOD}\n", HERE)


def test_every_fifth_pair_is_for_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(json.dumps({"text": f"t{number}", "short": f"s{number}"}) + "\n" for number in range(12))
    digest = hashlib.sha256(text.encode()).hexdigest()
    monkeypatch.setitem(SOURCES, "own", SummarySet("own", Published("own/a.jsonl", None, digest), "text", "short"))
    monkeypatch.setenv("DECONE_DATA", "data")
    Path("data/own").mkdir(parents=True)
    Path("data/own/a.jsonl").write_text(text)
    assert [pair.summary for pair in summaries.load("own", "dev")] == ["s0", "s5", "s10"]
    assert [pair.document for pair in summaries.load("own", "train")] == [f"t{n}" for n in range(12) if n % 5]
    Path("data/own/a.jsonl").write_text(text + text)
    with pytest.raises(ValueError, match=r"is not the published own/a\.jsonl text"):
        summaries.load("own", "dev")


def test_where_a_file_must_lie_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DECONE_DATA", raising=False)
    with pytest.raises(ValueError, match=r"as JSON lines .*, put it at DIR/cnn_dailymail/validation_subset\.jsonl and"):
        summaries.load("cnn_dailymail", "dev")
    with pytest.raises(ValueError, match="no summaries 'xsum'; choose from dialogsum, cnn_dailymail"):
        summaries.load("xsum", "dev")


def test_the_address_is_pinned() -> None:
    """An address at a branch would give another file one day."""
    address = SOURCES["dialogsum"].file.address
    assert address is not None
    assert len(address.split("/")[5]) == 40


@pytest.mark.parametrize(
    ("name", "train", "dev", "first"),
    [
        ("dialogsum", 400, 100, "#Person2# has trouble breathing."),
        ("cnn_dailymail", 800, 200, "Zully Broussard decided to give a kidney to a stranger . A new computer program"),
    ],
)
def test_the_true_files(
    name: str, train: int, dev: int, first: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECONE_DATA", str(data))
    learned, measured = summaries.load(name, "train"), summaries.load(name, "dev")
    assert (len(learned), len(measured)) == (train, dev)
    assert measured[0].summary.startswith(first)
    assert not {pair.document for pair in learned} & {pair.document for pair in measured}
