"""The rules of the house, checked on every file that git tracks or would track."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests import census

from decone import objectives

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ROOT / "src" / "decone"

# Folders that a checkout without git may hold beside its own files.
NOT_OURS = {".git", ".venv", "build", "dist", "runs", "__pycache__"}

# Written so that no pattern matches itself; the look-behind lets `docs/home/x` and web addresses pass.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|Users|mnt|srv|work|workspace)/\w|\b[A-Z]:[\\/]+Users\b")
REGISTRY = re.compile(r"\b(?:pypi\.org|python[h]osted|registry\.npm[j]s|deb\.debian\.org|npm[j]s\.com)", re.IGNORECASE)
PICKLES = {".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}


def tracked() -> list[Path]:
    """Files git tracks or would track; without git, every file of the checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        listed = ""
    if listed:
        found = [ROOT / name for name in listed.split("\0") if name]
        return sorted(path for path in set(found) if path.is_file() and not path.is_symlink())
    walked = (path for path in ROOT.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(
        path
        for path in walked
        if not any(part in NOT_OURS or part.endswith("_cache") for part in path.relative_to(ROOT).parts)
    )


FILES = tracked()
MODULES = [path for path in FILES if path.suffix == ".py" and ROOMS in path.parents]


def shown(paths: list[Path]) -> str:
    return ", ".join(str(path.relative_to(ROOT)) for path in paths)


def test_the_walk_sees_this_file_and_the_package() -> None:
    assert Path(__file__).resolve() in FILES
    assert ROOMS / "__init__.py" in MODULES


@pytest.mark.parametrize("name", [name for name in objectives.names() if (ROOMS / f"objectives/{name}.py").exists()])
def test_an_objective_has_a_test_a_row_and_a_paper(name: str) -> None:
    assert (ROOT / f"tests/objectives/test_{name}.py").is_file(), f"write tests/objectives/test_{name}.py"
    page = ROOT / "docs" / "objectives.md"
    assert page.is_file(), "docs/objectives.md is missing; it holds one table row per objective"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [row.split("|")[1] for row in rows]
    assert any(f"`{name}`" in cell for cell in cells), f"add a row that begins with `{name}` to docs/objectives.md"
    found = objectives.find(name)
    assert found.paper, f"say in the class attribute `paper` where {name} comes from"
    assert found.cures, f"say in `cures` and `cost` what {name} is for and what it takes"
    assert found.cost, f"say in `cures` and `cost` what {name} is for and what it takes"
    assert name == "mle" or found.citation.startswith("@"), f"give {name} a BibTeX entry in `citation`"
    assert "identity" in vars(found), f"say in `identity` at which settings {name} is plain cross-entropy, or None"


def test_every_file_among_the_objectives_can_be_called_by_its_name() -> None:
    """An objective must not escape the rule above by being left out of the names."""
    named = set(objectives.names())
    for path in MODULES:
        if path.parent != ROOMS / "objectives" or path.stem.startswith("_") or path.stem in named:
            continue
        classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
        papers = [
            node
            for cls in classes
            for node in cls.body
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "paper"
            if node.value is not None and ast.literal_eval(node.value)
        ]
        assert not papers, f"{path.name} holds a method but objectives.names() does not know {path.stem!r}"


def test_metrics_and_optimisers_have_tests() -> None:
    missing = [
        path
        for path in MODULES
        if path.parent.name in {"metrics", "optim"} and not path.stem.startswith("_")
        if not (ROOT / "tests" / path.parent.name / f"test_{path.stem}.py").is_file()
    ]
    assert not missing, f"tests mirror src; without a test file: {shown(missing)}"


TREES = census.parse(ROOMS)

# Modules below 40 lines that hold one idea all the same. Rooms where one file is one entry of a registry are left out.
SHORT = {
    "__main__.py": "python -m decone",
}
REGISTRIES = {"objectives", "table_metrics", "methods", "tasks"}


def places(rows: list[tuple[Path, str, int]]) -> str:
    return ", ".join(f"{path.relative_to(ROOT)}:{line} {name}" for path, name, line in rows[:20])


def test_no_file_is_long() -> None:
    long = [path for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 500]
    assert not long, f"over 500 lines; each holds two ideas, split it: {shown(long)}"


def test_a_short_module_has_a_reason() -> None:
    short = [
        path
        for path in MODULES
        if len(path.read_text(encoding="utf-8").splitlines()) < 40
        if path.stem != "__init__" and path.parent.name not in REGISTRIES
        if str(path.relative_to(ROOMS)) not in SHORT
    ]
    assert not short, f"under 40 lines; put it where its subject is, or say why in SHORT: {shown(short)}"


def test_interfaces_have_no_word_of_the_pool() -> None:
    rows = [
        (path, *row) for path, tree in TREES.items() for row in census.interface_names(tree) if census.in_pool(row[0])
    ]
    assert not rows, f"name the thing by its noun: {places(rows)}"


def test_modules_have_no_word_of_the_pool() -> None:
    named = [path for path in MODULES if census.in_pool(path.stem)]
    assert not named, f"name the idea that is in it: {shown(named)}"


def test_the_pool_is_rare_among_all_names() -> None:
    names = [name for tree in TREES.values() for name, _ in census.identifiers(tree)]
    pool = [name for name in names if census.in_pool(name)]
    assert 1000 * len(pool) < 5 * len(names), "run `python tests/census.py --where` and name things by their nouns"


def test_docstrings_begin_with_a_verb_or_a_noun_phrase() -> None:
    rows = [
        (path, *row) for path, tree in TREES.items() for row in census.docstrings(tree) if census.is_relative(row[0])
    ]
    assert not rows, f"say what it is or does: {places(rows)}"


def test_a_class_name_means_one_thing() -> None:
    repeated = {name: paths for name, paths in census.class_names(TREES).items() if len(paths) > 1}
    assert not repeated, "; ".join(f"{name}: {shown(paths)}" for name, paths in sorted(repeated.items()))


def test_few_modules_have_one_importer() -> None:
    single = [name for name, users in census.importers(TREES).items() if len(users) == 1]
    assert len(single) <= 45, f"a module for one other module is part of it: {', '.join(single)}"


def test_an_assert_makes_one_claim() -> None:
    joined = [
        (path, "and", node.lineno)
        for path in FILES
        if path.suffix == ".py" and ROOT / "tests" in path.parents
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And)
    ]
    assert not joined, f"a red test must say which claim failed; one assert each: {places(joined)}"


def test_no_module_is_a_drawer() -> None:
    drawers = [
        path
        for path in FILES
        if path.suffix == ".py" and {"utils", "common", "helpers"} & {path.stem, *path.relative_to(ROOT).parts[:-1]}
    ]
    assert not drawers, f"name the idea that is in it: {shown(drawers)}"


def test_every_module_says_what_it_is() -> None:
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not silent, f"without a module docstring: {shown(silent)}"


def test_every_room_has_an_init() -> None:
    folders = sorted({path.parent for path in MODULES})
    closed = [folder for folder in folders if not (folder / "__init__.py").is_file()]
    assert not closed, f"without an __init__.py that says in one sentence what the room is for: {shown(closed)}"


def test_no_text_names_a_machine_or_a_registry() -> None:
    # What this very machine would leak, whatever its folders are called; a root folder or /usr says nothing.
    here = {str(path) for path in (ROOT, Path.home()) if len(path.parts) > 2}
    if sys.prefix != sys.base_prefix:
        here.add(sys.prefix)
    found = []
    for path in FILES:
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if MACHINE_PATH.search(line) or REGISTRY.search(line) or any(place in line for place in here):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found, f"paths of one machine or hosts of a package registry in {', '.join(found)}"


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("open('{}home/ada/x')", True),
        ("see {}root/x", True),
        ("'{}Users/ada'", True),
        ("C:{}Users", True),
        ("https://example.org{}home/page", False),
        ("docs{}home/page", False),
        ("~{}work/x", False),
    ],
)
def test_machine_paths_are_told_from_others(line: str, caught: bool) -> None:
    assert bool(MACHINE_PATH.search(line.format("/"))) is caught


def test_nothing_pickled_is_tracked() -> None:
    pickled = [path for path in FILES if path.suffix in PICKLES or holds_pickle(path.read_bytes())]
    assert not pickled, f"write safetensors or JSON instead of {shown(pickled)}"


def holds_pickle(content: bytes) -> bool:
    """A pickle of protocol 2 or later, or a zip archive with one in it."""
    bare = content[:1] == b"\x80" and content[1:2] in (b"\2", b"\3", b"\4", b"\5") and content[-1:] == b"."
    return bare or (content[:2] == b"PK" and b"data.pkl" in content)


def test_a_pickle_is_recognised() -> None:
    assert holds_pickle(b"\x80\x05K\x01.")  # what pickle.dumps(1) gives
    assert not holds_pickle(b"text.")
