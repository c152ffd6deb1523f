"""GLUE files: their traps, what is refused and where, and the true files where they are."""

from pathlib import Path

import pytest

from decone.data.corpora import decode
from decone.training.tasks import glue
from decone.training.tasks.glue import Example, parse

HERE = Path("file.tsv")
TASKS = {task.name: task for task in glue.TASKS}


def test_each_task_has_its_columns() -> None:
    assert parse(TASKS["CoLA"], "gj04\t0\t*\tThem ran.\ngj04\t1\t\tThey ran.\n", HERE) == [
        Example("Them ran.", None, 0),
        Example("They ran.", None, 1),
    ]
    assert parse(TASKS["SST-2"], "sentence\tlabel\ngood \t1", HERE) == [Example("good", None, 1)]
    assert parse(TASKS["MRPC"], "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tA\tB\n", HERE) == [
        Example("A", "B", 0)
    ]
    header = "index\tsentence1\tsentence2\tlabel\n"
    assert parse(TASKS["RTE"], f"{header}0\tA.\tB.\tnot_entailment\n1\tC.\tD.\tentailment\n", HERE) == [
        Example("A.", "B.", 1),
        Example("C.", "D.", 0),
    ]
    line = "0\tmain\tx\t2012\t1\tnone\tnone\tA.\tB.\t3.800\n"
    (found,) = parse(TASKS["STS-B"], "header\n" + line, HERE)
    assert found == Example("A.", "B.", 3.8)
    assert isinstance(found.label, float)


def test_traps() -> None:
    marked = decode(b'\xef\xbb\xbfQuality\ta\tb\tc\td\r\n1\t1\t2\t" He said\tso "\r\n', HERE)
    assert parse(TASKS["MRPC"], marked, HERE) == [Example('" He said', 'so "', 1)], "nothing is quoted"
    strange = "a\u2028b\x85c"
    assert parse(TASKS["SST-2"], f"sentence\tlabel\n{strange}\t0\n", HERE)[0].first == strange


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("CoLA", "a\t1\t\tb\na\t1\tb\n", r"file\.tsv, line 2: 3 columns where CoLA has 4; get the file again"),
        ("CoLA", "a\t1\t\tb\n\na\t1\t\tb\n", r"line 2: 1 columns where CoLA has 4"),
        ("SST-2", "sentence\tlabel\nx\t2\n", r"line 2: '2' is no label of SST-2, which has 0, 1"),
        ("RTE", "i\ta\tb\tl\n0\tA\tB\tmaybe\n", r"line 2: 'maybe' is no label of RTE, which has entailment, not_"),
        ("RTE", "i\ta\tb\tl\n0\tA\t \tentailment\n", r"line 2: an empty sentence"),
        ("STS-B", "h\n" + "\t".join("0123456AB") + "\t5.1\n", r"'5\.1' is no label of STS-B, which has scores from 0"),
        ("STS-B", "h\n" + "\t".join("0123456AB") + "\tnan\n", r"'nan' is no label"),
        ("STS-B", "h\n" + "\t".join("0123456AB") + "\tx\n", r"'x' is no label"),
        ("RTE", "index\tsentence1\tsentence2\tlabel\n", r"file\.tsv holds no example of RTE"),
    ],
)
def test_a_damaged_line_is_named(task: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(TASKS[task], text, HERE)


def test_addresses_are_pinned() -> None:
    """An address at a branch would give other files one day."""
    for task in TASKS.values():
        for file in (task.train, task.dev):
            assert len(file.sha256) == 64
            if file.address is not None:
                commit = file.address.split("/")[5]
                assert len(commit) == 40
                assert file.address.endswith(file.path.rpartition("/")[2])


def test_a_file_without_an_address_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DECONE_DATA", raising=False)
    with pytest.raises(ValueError, match=r"no public address gives glue/MRPC/train\.tsv .*DIR/glue/MRPC/train\.tsv"):
        glue.load("MRPC", "train")
    with pytest.raises(ValueError, match="no task 'WNLI'; choose from CoLA, SST-2, MRPC, RTE, STS-B"):
        glue.load("WNLI", "dev")


@pytest.mark.parametrize(
    ("task", "train", "dev", "first"),
    [
        ("CoLA", 8551, 527, "Our friends won't buy this analysis, let alone the next one we propose."),
        ("SST-2", 67349, 872, "hide new secretions from the parental units"),
        ("MRPC", 3668, 408, None),
        ("RTE", 2490, 277, "No Weapons of Mass Destruction Found in Iraq Yet."),
        ("STS-B", 5749, 1500, "A plane is taking off."),
    ],
)
def test_the_true_files(
    task: str, train: int, dev: int, first: str | None, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECONE_DATA", str(data))
    examples = glue.load(task, "train")
    assert (len(examples), len(glue.load(task, "dev"))) == (train, dev)
    assert first is None or examples[0].first == first
