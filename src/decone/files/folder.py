"""The folder of a stranger: nothing outside it is read; files are small, ordinary and of the kind they claim to be."""

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

from decone.files.foreign import plain, quoted
from decone.files.settings import parse_json

JSON_LIMIT = 64 << 20  # bytes; the longest index published is about a tenth of that
EXCLUDED = (".git",)  # folders that are not copied: a changed model is no commit of its history
_SHARED = re.compile(r"[0-9a-f]{64}")


def inside(folder: Path, name: str) -> Path:
    """The path of a file in a folder.

    Links may lead elsewhere in the folder, or, in a cache of huggingface_hub, from `snapshots` to the blobs of the
    same repository or to those all repositories share.

    Args:
        folder: that holds the file.
        name: relative, as a stranger wrote it.

    Raises:
        ValueError: the name leads out of the folder.
    """
    refusal = ValueError(f"{folder} names the file {quoted(name)}, which lies outside it; that is not opened")
    try:
        path, home = folder / name, folder.resolve()
        target = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a zero byte, a name too long
        raise refusal from None
    steps_out = Path(name).is_absolute() or ".." in Path(name).parts
    if steps_out or not (target.is_relative_to(home) or _is_blob(target, home)):
        raise refusal
    return path


def _is_blob(target: Path, home: Path) -> bool:
    for folder in (home, *home.parents):
        if folder.parent.name == "snapshots":
            repository = folder.parent.parent
            shared = repository.parent / "blobs" / target.name[:2] / target.name
            is_shared = target == shared and _SHARED.fullmatch(target.name) is not None
            return is_shared or target.parent == repository / "blobs"
    return False


def read_text(folder: Path, name: str, limit: int = JSON_LIMIT) -> str | None:
    """The text of a file in a folder, None where there is no such file.

    Raises:
        ValueError: it cannot be read, is larger than `limit` bytes, is not UTF-8, or lies outside the folder.
    """
    path = inside(folder, name)
    try:
        if not path.is_file():
            return None
        size = path.stat().st_size
        if size > limit:
            raise ValueError(f"{path} has {size:,} bytes, more than any such file needs; is it the right file?")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; download it again") from None


def read_object(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in a file of a folder, None where there is no such file.

    Raises:
        ValueError: as `read_text`, or it is not JSON, nested too deeply, or not an object.
    """
    text = read_text(folder, name)
    if text is None:
        return None
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{folder / name} is not JSON ({plain(error)}); download it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{folder / name} holds no JSON object; download it again")
    return content


def list_files(root: Path) -> dict[str, Path]:
    """Every file of a folder by its name there, without `EXCLUDED`.

    Links may lead to other files of it, or of a hub's cache.

    Raises:
        ValueError: a link leads out of the folder or to a folder, or a file is no ordinary one.
    """
    files: dict[str, Path] = {}
    for above, folders, names in os.walk(root):
        if Path(above) == root:
            folders[:] = [name for name in folders if name not in EXCLUDED]
        for name in folders:
            if (Path(above) / name).is_symlink():
                raise ValueError(
                    f"{Path(above) / plain(name)} is a link to a folder, which is not followed; replace it"
                )
        for name in sorted(names):
            relative = str((Path(above) / name).relative_to(root))
            path = inside(root, relative)
            if not path.is_file():
                raise ValueError(f"{root / plain(relative)} is no ordinary file; take it out of the model's folder")
            files[relative] = path
    return files


def copy_file(path: Path, target: Path, link: bool = False) -> None:
    """Copies a file, or links it: then both names share their bytes on disk.

    Raises:
        ValueError: it cannot be linked, for the target is on another disk.
    """
    if not link:
        shutil.copyfile(path, target)
        return
    try:
        os.link(path.resolve(), target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise ValueError(
            f"files of {plain(path.parent)} cannot be linked, for the new folder is on another disk; leave out --link"
        ) from None
