"""The tables that a downstream study compares: a pretrained model as it is, or with a repair applied.

Each variant of a repair (`RepairMethod.variants`) is a row of the study; a delta of the user's own replaces it.
"""

from pathlib import Path

from decone.models.find_tables import find_tables
from decone.repair.api import apply_delta, read_delta, repair_with
from decone.repair.methods.registry import repair_variants
from decone.repair.tables import model_path


def make_delta(row: str, model: str, out: Path) -> None:
    """Makes the delta of a row, unless it is there.

    Args:
        row: name of a variant, one of `repair_variants`.
        model: folder or hub name.
        out: the delta to write, a .safetensors file.

    Raises:
        ValueError: it cannot be made; nothing is left behind.
    """
    if out.exists():
        return
    method, variant = repair_variants()[row]
    try:
        repair_with(method, model, out=out, **variant.settings())
    except ValueError as error:
        raise ValueError(
            f"{error}; or make a delta with decone repair {method}, and give it: --delta {row}=FILE.safetensors"
        ) from None


def repaired_model(model: str, delta: Path, folder: Path) -> Path:
    """Applies a delta to a model, in a folder named by the digest of its table; written unless it is there.

    Other files than those of the table are hard links where both lie on one disk, and copies elsewhere.

    Raises:
        ValueError: as `apply_delta`.
    """
    facts = read_delta(delta).facts
    out = folder / f"{facts.method}-{facts.tables[0].after[:16]}"
    if not out.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        source = Path(model) if Path(model).exists() else model_path(find_tables(model))
        apply_delta(model, delta, out, link=source.stat().st_dev == folder.stat().st_dev)
    return out
