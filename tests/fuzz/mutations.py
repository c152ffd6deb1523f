"""Mutations of files and words: what a stranger, a cut download or a slip of the hand makes of them.

Each takes a `Random` and tells in a phrase what it did, so that a failure can be read without a debugger.
"""

import gzip
import json
import math
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import tomli_w

NUMBERS = (-1, 0, 1, 2, 7, 255, 2**31 - 1, 2**31, 10**9, 2**53, 2**63 - 1, 2**63, 10**30, -(10**9), 0.5, -0.5, 1e308)
STRINGS = ("", " ", "x", "0", "-1", "nan", "inf", "1e999", "9" * 5000, "x" * 5000, "\x1b[31mred\n", "\u202e", "a\tb\0")
PATHS = ("../../stranger.safetensors", "/etc/passwd", ".", "..", "config.json", "~", "\ud800", "a/b/c", "x.bin")
BYTES = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x80",
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"\n",
    b"{",
    b"[" * 50000,
    b"1" * 5000,
)
LENGTHS = (0, 1, 7, 8, 2**31, 2**32, 2**62, 2**63 - 1, 2**64 - 1)


def hostile(draw: Random) -> Any:
    """A value that hardly anybody expects where it is put."""
    simple: list[Any] = [None, True, False, math.nan, math.inf, -math.inf, [], {}, [0], ["x"], [[]], {"x": 1}, [None]]
    return draw.choice([*simple, *NUMBERS, *NUMBERS, *STRINGS, *PATHS, _nested(draw.choice((5, 60, 300)))])


def mutate_tree(tree: Any, draw: Random) -> tuple[Any, str]:
    """Changes one node of a JSON tree; nodes near the root are as likely as the many deep ones."""
    parent, key, path = _descend(tree, draw)
    if parent is None:
        value = hostile(draw)
        return value, f"the whole becomes {_brief(value)}"
    action = draw.choice(("replace", "replace", "replace", "near", "delete", "double", "rename", "swap", "wrap"))
    value = parent[key]
    if action == "delete":
        del parent[key]
    elif action == "double" and isinstance(parent, list):
        parent.insert(key, value)
    elif action == "rename" and isinstance(parent, dict):
        del parent[key]
        parent[draw.choice((*STRINGS, *PATHS, f"{key}s"))] = value
    elif action == "swap":
        other, other_key, _ = _descend(tree, draw)
        if other is not None:
            parent[key] = json.loads(json.dumps(other[other_key]))
    elif action == "wrap":
        parent[key] = draw.choice(([value], {"x": value}, str(value)))
    elif action == "near" and isinstance(value, str):
        parent[key] = draw.choice((value[:-1], value + value, value.upper(), value[::-1], f" {value}"))
    elif action == "near" and isinstance(value, int | float):
        parent[key] = draw.choice((value + 1, value - 1, -value, value * 2, value * 1000, str(value), bool(value)))
    else:
        action, parent[key] = "replace", hostile(draw)
    new = _brief(parent[key]) if key in (parent if isinstance(parent, dict) else range(len(parent))) else "nothing"
    return tree, f"{action} {path}: {_brief(value)} -> {new}"


def mutate_bytes(content: bytes, draw: Random) -> tuple[bytes, str]:
    """Flips, cuts, doubles or inserts bytes anywhere."""
    start = draw.randrange(len(content) + 1)
    stop = min(len(content), start + draw.choice((1, 4, 64, len(content))))
    action = draw.choice(("flip", "truncate", "insert", "remove", "double", "empty"))
    if action == "flip":
        changed = bytes(byte ^ draw.choice((1, 128, 255)) for byte in content[start:stop][:64])
        return content[:start] + changed + content[start + len(changed) :], f"{len(changed)} bytes flipped at {start}"
    if action == "truncate":
        return content[:start], f"cut to {start} bytes"
    if action == "insert":
        piece = draw.choice(BYTES)
        return content[:start] + piece + content[start:], f"{piece[:8]!r} x{len(piece)} at {start}"
    if action == "remove":
        return content[:start] + content[stop:], f"bytes {start} to {stop} removed"
    if action == "double":
        return content[:stop] + content[start:], f"bytes {start} to {stop} doubled"
    return b"", "empty"


def mutate_json(content: bytes, draw: Random) -> tuple[bytes, str]:
    """Changes a JSON document by its tree, seldom by its bytes."""
    return _by_tree(content, draw, json.loads, lambda tree: json.dumps(tree).encode())


def mutate_toml(content: bytes, draw: Random) -> tuple[bytes, str]:
    """Changes a TOML document by its tree, seldom by its bytes."""
    if draw.random() < 0.1:
        depth = draw.choice((100, 5000))
        return content + b"\nx = " + b"[" * depth + b"]" * depth, f"an array {depth} deep"
    return _by_tree(content, draw, lambda text: tomllib.loads(text.decode()), lambda tree: tomli_w.dumps(tree).encode())


def mutate_safetensors(content: bytes, draw: Random) -> tuple[bytes, str]:
    """Changes the header of a safetensors file by its tree, its length, or any bytes."""
    action, length = draw.random(), int.from_bytes(content[:8], "little")
    if action < 0.15:
        return mutate_bytes(content, draw)
    if action < 0.25:
        new = draw.choice((*LENGTHS, length - 1, length + 1))
        return new.to_bytes(8, "little") + content[8:], f"header of {new} bytes"
    header, told = json.loads(content[8 : 8 + length]), ""
    metadata = header.get("__metadata__") or {}
    if "decone.delta" in metadata and draw.random() < 0.6:
        facts, told = mutate_tree(json.loads(metadata["decone.delta"]), draw)
        metadata["decone.delta"] = json.dumps(facts)
    else:
        header, told = mutate_tree(header, draw)
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + content[8 + length :], told


def mutate_lines(content: bytes, draw: Random) -> tuple[bytes, str]:
    """Changes lines of a text or a table, or the fields of one."""
    if content.startswith(b"\x1f\x8b"):
        inner, told = mutate_lines(gzip.decompress(content), draw)
        return (gzip.compress(inner), told) if draw.random() < 0.7 else mutate_bytes(content, draw)
    if draw.random() < 0.3:
        return mutate_bytes(content, draw)
    lines = content.split(b"\n")
    index = draw.randrange(len(lines))
    action = draw.choice(("delete", "double", "field", "field", "json", "long", "swap", "many"))
    if action == "delete":
        del lines[index]
    elif action == "double":
        lines.insert(index, lines[index])
    elif action == "swap":
        lines[index], lines[0] = lines[0], lines[index]
    elif action == "long":
        lines[index] = lines[index] * draw.choice((100, 10000))
    elif action == "many":
        lines = lines * draw.choice((10, 100))
    elif action == "json" and lines[index].startswith(b"{"):
        lines[index], told = mutate_json(lines[index], draw)
        return b"\n".join(lines), f"line {index + 1}: {told}"
    else:
        separator = draw.choice((b"\t", b" "))
        fields = lines[index].split(separator)
        fields[draw.randrange(len(fields))] = str(hostile(draw)).encode("utf-8", "surrogatepass")[:20000]
        lines[index] = separator.join(fields)
    return b"\n".join(lines), f"{action} line {index + 1}"


def mutate_word(word: str, draw: Random) -> tuple[str, str]:
    """Changes a word of a command line: a method, a list, a setting."""
    pieces = [word]
    for separator in ",:=+.":
        pieces = [part for piece in pieces for part in _with_separator(piece, separator)]
    index = draw.randrange(len(pieces))
    action = draw.choice(("replace", "delete", "double", "separator", "text", "typo"))
    if action == "delete":
        del pieces[index]
    elif action == "double":
        pieces.insert(index, pieces[index])
    elif action == "separator":
        pieces.insert(index, draw.choice(",:=+.-\t "))
    elif action == "typo":
        pieces[index] = pieces[index][:-1]
    elif action == "text":
        pieces = [str(hostile(draw))]
    else:
        pieces[index] = str(hostile(draw))
    new = "".join(pieces).replace("\0", "").encode("utf-8", "ignore").decode()  # what a shell can pass on
    return new, f"{word!r} -> {_brief(new)}"


def mutate_file(path: Path, draw: Random) -> str:
    """Mutates a file in place, one to three times, as its kind suggests."""
    kinds: dict[str, Callable[[bytes, Random], tuple[bytes, str]]] = {
        ".json": mutate_json,
        ".toml": mutate_toml,
        ".safetensors": mutate_safetensors,
    }
    if draw.random() < 0.02:
        path.unlink()
        return "removed"
    mutate, steps = kinds.get(path.suffix, mutate_lines), []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        try:
            content, step = mutate(path.read_bytes(), draw)
        except (
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
            RecursionError,
            OSError,
            EOFError,
            zlib.error,
        ):  # no longer of its kind
            content, step = mutate_bytes(path.read_bytes(), draw)
        path.write_bytes(content)
        steps.append(step)
    return "; ".join(steps)


def _by_tree(
    content: bytes, draw: Random, read: Callable[[bytes], Any], write: Callable[[Any], bytes]
) -> tuple[bytes, str]:
    if draw.random() < 0.2:
        return mutate_bytes(content, draw)
    tree, told = mutate_tree(read(content), draw)
    return write(tree), told


def _descend(tree: Any, draw: Random) -> tuple[Any, Any, str]:
    """Container, key and path of a node; None for the root itself."""
    parent, key, path = None, None, "$"
    node = tree
    while isinstance(node, dict | list) and node and (parent is None or draw.random() < 0.6):
        if parent is None and draw.random() < 0.02:
            break
        parent, key = node, draw.choice(sorted(node, key=str)) if isinstance(node, dict) else draw.randrange(len(node))
        path += f"[{key!r:.60}]"
        node = node[key]
    return parent, key, path


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"x": value}
    return value


def _with_separator(text: str, separator: str) -> list[str]:
    parts = text.split(separator)
    return [piece for part in parts for piece in (part, separator)][:-1]


def _brief(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 70 else f"{text[:60]}… ({len(text)} signs)"
