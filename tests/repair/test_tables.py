"""Which tensors a repair touches."""

from pathlib import Path

import pytest
from safetensors.torch import save_file
from tests.repair.checkpoints import INPUT, OUTPUT, V, cone, llama

from decone.models.locate import locate
from decone.models.located import Located, MemoryTable
from decone.repair.tables import home, targets


def test_untied(tmp_path: Path) -> None:
    located = locate(str(llama(tmp_path / "m", head=cone(seed=1))))
    assert not located.tied
    assert [(found.role, found.names) for found in targets(located)] == [("input", (INPUT,))]
    assert [(found.role, found.names) for found in targets(located, "output")] == [("output", (OUTPUT,))]
    assert [found.role for found in targets(located, "both")] == ["input", "output"]
    assert home(located) == tmp_path / "m"


def test_tied_is_one_table_whatever_is_asked(tmp_path: Path) -> None:
    located = locate(str(llama(tmp_path / "m", tied=True)))
    assert located.tied
    for which in ("input", "output", "both"):
        assert [found.names for found in targets(located, which)] == [(INPUT,)]


def test_tied_but_stored_twice_names_both_tensors(tmp_path: Path) -> None:
    located = locate(str(llama(tmp_path / "m", head=cone(), tied=True)))
    assert located.tied
    assert located.head is None
    assert [found.names for found in targets(located, "both")] == [(INPUT, OUTPUT)]


def test_a_padded_table_keeps_its_whole_length(tmp_path: Path) -> None:
    (target,) = targets(locate(str(llama(tmp_path / "m", table=cone(V + 4), head=cone(seed=1)))))
    assert (target.table.shape[0], target.whole.shape[0]) == (V, V + 4)


def test_without_an_output(tmp_path: Path) -> None:
    folder = llama(tmp_path / "m")
    save_file({"embeddings.weight": cone()}, tmp_path / "bare.safetensors")
    for located in (locate(str(folder)), locate(str(tmp_path / "bare.safetensors"), embedding="embeddings.weight")):
        for which in ("output", "both"):
            with pytest.raises(ValueError, match="no output table"):
                targets(located, which)
    with pytest.raises(ValueError, match="not in a file"):
        targets(Located("m", "bert", "encoder", MemoryTable("w", cone())))
