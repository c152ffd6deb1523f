"""Counts what the house rules are about: sizes of files, words in names and docstrings, directions of imports.

python tests/census.py              the numbers, one per line
python tests/census.py --where      each identifier of the pool and each docstring, with file and line
python tests/census.py src/decone/diagnosis --where
"""

import argparse
import ast
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"

# Participles and pronouns that say nothing of what a value is.
POOL = frozenset(
    {
        "found",
        "said",
        "told",
        "made",
        "one",
        "other",
        "part",
        "place",
        "here",
        "there",
        "given",
        "asked",
        "known",
        "wanted",
        "chosen",
        "whole",
        "some",
        "many",
        "kept",
        "own",
        "held",
        "seen",
        "met",
        "looked",
        "taken",
        "drawn",
        "shown",
        "both",
        "each",
        "left",
        "rest",
        "way",
    }
)
RELATIVE = ("What", "Which", "Whether", "How", "Where")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yields every name node with its line: variables, attributes, parameters, functions, classes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name():
                yield node.id, node.lineno
            case ast.Attribute():
                yield node.attr, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno


def in_pool(name: str) -> bool:
    """Tells whether a name, or its plural, is a word of the pool."""
    bare = name.strip("_").lower()
    return bare in POOL or bare.removesuffix("s") in POOL


def interface_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yields the names in signatures, the attributes that classes declare, and the names of classes and functions."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name, node.lineno
                arguments = node.args
                everything = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
                for argument in everything + [extra for extra in (arguments.vararg, arguments.kwarg) if extra]:
                    yield argument.arg, argument.lineno
            case ast.ClassDef():
                yield node.name, node.lineno
                for statement in node.body:
                    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                        yield statement.target.id, statement.lineno
            case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store()):
                yield node.attr, node.lineno


def docstrings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yields the first line of every docstring with its line number."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            text = ast.get_docstring(node)
            if text:
                yield text.splitlines()[0], getattr(node, "lineno", 1)


def is_relative(line: str) -> bool:
    """Tells whether a docstring begins with a relative or interrogative word instead of a verb or a noun phrase."""
    return line.split(" ")[0].rstrip(",:") in RELATIVE


def class_names(trees: dict[Path, ast.Module]) -> dict[str, list[Path]]:
    """Maps the name of each class on the top level of a module to the files that define it, a leading `_` left out."""
    classes: dict[str, list[Path]] = defaultdict(list)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                classes[node.name.lstrip("_")].append(path)
    return classes


def module_name(path: Path) -> str:
    """Returns the dotted name of a module below `src`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def importers(trees: dict[Path, ast.Module]) -> dict[str, set[str]]:
    """Maps each module that is no package to the modules of the package that import it."""
    modules = {module_name(path): path for path in trees}
    users: dict[str, set[str]] = {name: set() for name, path in modules.items() if path.stem != "__init__"}
    for name, path in modules.items():
        for node in ast.walk(trees[path]):
            targets: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module:
                targets = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            for target in targets:
                if target in users and target != name:
                    users[target].add(name)
    return users


def parse(root: Path) -> dict[Path, ast.Module]:
    """Reads every Python file below a folder."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.py"))}


def main() -> None:
    """Prints the census of a folder, the whole package by default."""
    parser = argparse.ArgumentParser(description="Counts what the house rules are about.")
    parser.add_argument("folder", nargs="?", type=Path, default=SOURCE / "decone")
    parser.add_argument("--where", action="store_true", help="list each place, with file and line")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    trees = parse(folder)
    if not trees:
        parser.error(f"no Python files in {folder}")
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in trees}
    names = [(path, name, line) for path, tree in trees.items() for name, line in identifiers(tree)]
    pool = [row for row in names if in_pool(row[1])]
    first_lines = [(path, text, line) for path, tree in trees.items() for text, line in docstrings(tree)]
    relative = [row for row in first_lines if is_relative(row[1])]
    repeated = {name: paths for name, paths in class_names(trees).items() if len(paths) > 1}
    single = [name for name, users in importers(trees).items() if len(users) == 1]
    if options.where:
        for path, name, line in [*pool, *relative]:
            print(f"{path.relative_to(SOURCE.parent)}:{line}: {name}")
        for name, paths in sorted(repeated.items()):
            print(f"class {name}: " + ", ".join(str(path.relative_to(SOURCE.parent)) for path in paths))
        for path, length in lengths.items():
            if length > 500 or (length < 40 and path.stem != "__init__"):
                print(f"{path.relative_to(SOURCE.parent)}: {length} lines")
        sys.stdout.write("one importer: " + ", ".join(single) + "\n")
    print(f"files                       {len(lengths)}")
    print(f"lines                       {sum(lengths.values())}")
    print(f"median, longest file        {statistics.median(lengths.values()):.0f}, {max(lengths.values())}")
    frequent = ", ".join(f"{name} {count}" for name, count in Counter(name for _, name, _ in pool).most_common(8))
    print(f"pool per 1,000 names        {1000 * len(pool) / len(names):.1f}   {frequent}")
    print(f"docstrings, relative        {len(relative)} of {len(first_lines)}")
    print(f"repeated class names        {len(repeated)}")
    print(f"modules with one importer   {len(single)}")


if __name__ == "__main__":
    main()
