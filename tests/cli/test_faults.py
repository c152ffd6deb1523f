"""Kills and full disks at random moments: what is called again ends as if nothing had been, and sources stay.

Every command is killed at 30 events on its disk, and has 10 disks that are too small.
"""

import json
import random
import runpy
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from tests.repair.vocabularies import build

pytestmark = pytest.mark.slow
pytest.importorskip("plotly")

KILLS, DISKS = 30, 10
STUDY = ("--seeds", "1", "--jobs", "2", "--quiet")
COMMANDS = {
    "train": ("train", "tiny.toml", "--out", "target/run", "--quiet"),
    "compare": ("compare", "--config", "tiny.toml", "--methods", "mle,threshold:margin=1", "--out", "target/c", *STUDY),
    "reproduce": ("reproduce", "tiny:table1", "--out", "target/results", "--runs", "target/runs", *STUDY),
    "repair": ("repair", "directions", "m", "--components", "2", "--out", "target/d.safetensors", "--quiet"),
    "apply": ("repair", "apply", "m", "d.safetensors", "--out", "target/n"),
    "grow": ("grow", "m", "covid,blog", "--out", "target/n", "--quiet"),
    "trim": ("trim", "m", "--text", "words.txt", "--out", "target/n", "--quiet"),
}
# A new model that is complete is not written again: the kill came after its last rename.
COMPLETE = " exists; remove it, or choose another --out"


@pytest.fixture
def sources(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a text, a configuration, a model and a delta."""
    from decone.repair.api import repair_directions

    work = tmp_path / "work"
    work.mkdir()
    for name in ("tiny.toml", "tiny.txt"):
        (tmp_path / name).rename(work / name)
    monkeypatch.chdir(work)
    Path("words.txt").write_text("the cat sat on the mat and ran over the hill by the sea\n" * 3)
    build("gpt2", Path("m"))
    repair_directions("m", components=2, out="d.safetensors")
    monkeypatch.chdir(tmp_path)


def answers(nursery: ForkServerContext, fault: str, command: str, shares: Sequence[float]) -> dict[str, Any]:
    file = Path("faults.json")
    file.write_text(json.dumps({"fault": fault, "arguments": COMMANDS[command], "shares": list(shares)}))
    script = str(Path(__file__).with_name("faults.py"))
    process = nursery.Process(target=runpy.run_path, args=(script, None, "__main__"))
    process.start()
    process.join()
    content: dict[str, Any] = json.loads(file.read_text())
    assert "failure" not in content, content["failure"]
    if "skip" in content:
        pytest.skip(f"no disk of its own: {content['skip']}")
    assert content["code"] == 0, content["error"]
    return content


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_at_any_event_is_made_up_for(command: str, nursery: ForkServerContext) -> None:
    draw = random.Random(command)
    content = answers(nursery, "kills", command, [draw.random() for _ in range(KILLS)])
    wrong = [
        trial
        for trial in content["trials"]
        if trial["wrong"]
        or trial["source"]
        or trial["killed"] == 0
        or not (trial["again"] == 0 or (trial["again"] == 2 and COMPLETE in trial["error"]))
    ]
    assert not wrong, f"{len(wrong)} of {KILLS}: {json.dumps(wrong[:3], indent=1)}"


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_is_full_at_any_byte_is_one_sentence(command: str, nursery: ForkServerContext) -> None:
    draw = random.Random(command)
    content = answers(nursery, "full", command, [draw.random() for _ in range(DISKS)])
    wrong = [
        trial
        for trial in content["trials"]
        if trial["wrong"]
        or trial["source"]
        or trial["again"] != 0
        or trial["full"] != 1
        or trial["sentence"].count("\n") != 1
        or not trial["sentence"].startswith("decone: cannot write ")
        or any(".writing" in name or name.endswith(".lock") for name in trial["between"])
    ]
    assert not wrong, f"{len(wrong)} of {DISKS}: {json.dumps(wrong[:3], indent=1)}"
