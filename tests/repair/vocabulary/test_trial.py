"""New tokens in texts, as transformers' AutoTokenizer of each family cuts them and puts them together again."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.repair.tokenizer_families import BYTE_LEVEL, FAMILIES, LINES, SENTENCE_PIECE, UNIGRAM, build_family
from tests.repair.vocabularies import loaded

from decone.repair.vocabulary.addition import add_tokens
from decone.repair.vocabulary.spelling import select_new
from decone.repair.vocabulary.tokenizer import build_tokenizer, read_spec, unknown_ids
from decone.repair.vocabulary.trial import try_tokens

CHAT = "<|im_start|>user\nhello there<|im_end|>\n"
PIECES = (*SENTENCE_PIECE, *UNIGRAM)
FAMILY = "👩‍👩‍👧"  # joined by U+200D


def grown(family: str, tokens: list[str], **options: Any) -> tuple[Any, Any, list[int], list[str]]:
    """The tokenizer before and after, the ids of the new tokens, and what is said of them."""
    folder, new = build_family(family, Path("old")), Path("new")
    return (loaded(folder), *grow_folder(folder, new, tokens, **options))


def grow_folder(
    folder: Path, new: Path, tokens: list[str], load: bool = True, **options: Any
) -> tuple[Any, list[int], list[str]]:
    spec = read_spec(folder)
    tokenizer = build_tokenizer(spec, folder)
    unknown = unknown_ids(spec, tokenizer)
    selection = select_new(tokens, spec, tokenizer, unknown, **options)
    addition = add_tokens(folder, spec, tokenizer, selection.spellings)
    files = {"tokenizer.json": json.dumps(addition.respell(spec)).encode()} | addition.files
    notes = [*selection.notes(), *try_tokens(folder, files, selection.spellings, addition.ids, unknown)]
    new.mkdir()
    for path in folder.iterdir():
        (new / path.name).write_bytes(files.get(path.name) or path.read_bytes())
    return loaded(new) if load else None, addition.ids, notes


def cut(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def back(tokenizer: Any, text: str) -> str:
    content: str = tokenizer.decode(cut(tokenizer, text))
    return content


@pytest.mark.parametrize("family", FAMILIES)
def test_marks_of_a_chat_are_found_where_a_template_puts_them(family: str) -> None:
    _, new, ids, _ = grown(family, ["<|im_start|>", "<|im_end|>"])
    assert [cut(new, CHAT).count(index) for index in ids] == [1, 1]
    assert "im_start" not in new.decode(cut(new, CHAT), skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_marks_can_stay_in_a_decoded_text(family: str) -> None:
    _, new, ids, _ = grown(family, ["<|im_start|>"], special="none")
    assert ids[0] in cut(new, CHAT)
    assert "im_start" in new.decode(cut(new, CHAT), skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_met_and_keep_the_space_before_them(family: str) -> None:
    text = "covid: the covid sat, a covid, you love covid"
    if family == "words":
        text = "the covid sat on the covid and covid covid"
    old, new, ids, _ = grown(family, ["covid"])
    assert cut(new, text).count(ids[0]) == 4
    known = "cat: the cat sat, a cat, you love cat"
    assert back(new, text) == text or (back(old, known) != known and back(old, text) != text)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("bert", "albert", "words")])
@pytest.mark.parametrize("token", ["ạ", FAMILY, "海"])
def test_letters_are_met_inside_words(family: str, token: str) -> None:
    text = f"nam b{token}n co, {token} (a{token})"
    _, new, ids, notes = grown(family, [token])
    assert cut(new, text).count(ids[0]) == 3
    assert back(new, text) == text
    assert notes == []


@pytest.mark.parametrize(
    ("family", "token"), [*((family, "Ġcovid") for family in BYTE_LEVEL), *((family, "▁covid") for family in PIECES)]
)
def test_the_spelling_of_the_vocabulary_is_read(family: str, token: str) -> None:
    text = "you love covid and covids"
    _, new, ids, notes = grown(family, [token])
    assert cut(new, text).count(ids[0]) == 2
    assert back(new, text) == text
    assert notes == [
        f"read as the vocabulary spells them, behind a space: {token}; --literal takes every letter as it stands"
    ]


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_bytes_of_a_vocabulary_are_read(family: str) -> None:
    _, new, ids, notes = grown(family, ["ĠZÃ¼rich", "Ġგზა", "ÑĤÐ¾"])
    assert set(ids) < set(cut(new, "to Zürich, or გზა: то"))
    assert any(note.startswith("read as the vocabulary spells them, as words: ÑĤÐ¾") for note in notes)
    assert back(new, "to Zürich, or გზა") == "to Zürich, or გზა"


def test_pieces_inside_words() -> None:
    _, new, ids, notes = grown("bert", ["##vid"])
    assert ids[0] in cut(new, "the covid sat")
    assert ids[0] not in cut(new, "the vid sat")
    assert back(new, "the covid sat") == "the covid sat"
    assert notes == [
        "read as the vocabulary spells them, inside words: ##vid; --literal takes every letter as it stands"
    ]


@pytest.mark.parametrize(("family", "token"), [("gpt2", "Ġcovid"), ("bert", "##vid"), ("llama", "Ġcovid")])
def test_a_literal_mark_can_be_asked_for(family: str, token: str) -> None:
    _, new, ids, notes = grown(family, [token], literal=True)
    assert ids[0] in cut(new, f"the {token} sat")
    assert ids[0] not in cut(new, "the covid sat")
    assert not any("read as the vocabulary" in note for note in notes)


@pytest.mark.parametrize(("family", "token"), [("gpt2", "▁covid"), ("gemma", "Ġcovid"), ("bert", "▁covid")])
def test_the_mark_of_another_family_is_named(family: str, token: str) -> None:
    *_, notes = grown(family, [token])
    assert f"taken letter by letter, for this vocabulary marks a space otherwise: {token}" in notes


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "words"])
def test_anywhere_is_inside_words_too(family: str) -> None:
    old, new, ids, notes = grown(family, ["covid"], match="anywhere")
    text = "a acovida the covid"
    assert cut(new, text).count(ids[0]) == 2
    assert (
        back(new, text) == text or back(old, text) != text or any("other spaces where covid" in note for note in notes)
    )


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_a_space_that_comes_in_or_goes_is_named(family: str) -> None:
    *_, notes = grown(family, ["[TOOL]"])
    assert any(note.startswith("decoding gives other spaces where [TOOL] stands") for note in notes)


@pytest.mark.parametrize("family", BYTE_LEVEL)
@pytest.mark.parametrize("word", ["Zürich", "không", "mañana"])
def test_words_that_a_byte_level_decoder_takes_for_bytes_bring_their_space(family: str, word: str) -> None:
    text = f"to {word}, and the {word}"
    _, new, ids, notes = grown(family, [word])
    assert cut(new, text).count(ids[0]) == 2
    assert back(new, text) == text
    assert any(note.startswith("taken with the space before them") and word in note for note in notes)


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_letters_that_a_byte_level_decoder_takes_for_bytes_are_named(family: str) -> None:
    *_, notes = grown(family, ["Zürich"], literal=True)
    assert any("other letters where Zürich stands" in note and "written ĠZürich" in note for note in notes)


def test_a_token_that_no_text_holds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"does not find [Bb]log in a text again"):
        grown("bert", ["blog", "Blog"])  # one of them alone is what the tokenizer reads


@pytest.mark.parametrize("settings", [{"tokenizer_class": 5}, {"tokenizer_class": "T5Tokenizer", "extra_ids": 10**9}])
def test_a_tokenizer_that_transformers_cannot_load_is_tried_alone(settings: dict[str, Any]) -> None:
    folder = build_family("llama3", Path("old"))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(settings))
    _, _, notes = grow_folder(folder, Path("new"), ["covid"], load=False)
    assert [note.split(" (")[0] for note in notes] == [
        "new tokens were tried with tokenizer.json alone, not as transformers loads it"
    ]


def test_sizes_in_a_configuration_are_not_built_from() -> None:
    folder = build_family("qwen2", Path("old"))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "num_hidden_layers": 10**9}))
    _, _, notes = grow_folder(folder, Path("new"), ["covid"], load=False)
    assert notes == []


@pytest.mark.parametrize("family", ["t5", "xlm-roberta"])
def test_a_new_piece_stands_for_its_old_pieces_and_changes_no_other_cut(family: str) -> None:
    draw = random.Random(3)
    letters = sorted(letter for letter in set("".join(LINES)) if letter.isalpha())
    words = sorted({"".join(draw.choice(letters) for _ in range(draw.randint(2, 5))) for _ in range(80)})
    old, new, ids, _ = grown(family, words)
    spec = read_spec(Path("old"))
    tokenizer = build_tokenizer(spec, "old")
    spellings = select_new(words, spec, tokenizer, unknown_ids(spec, tokenizer)).spellings
    pieces = dict(
        zip(ids, [piece for piece, _ in add_tokens(Path("old"), spec, tokenizer, spellings).pieces], strict=True)
    )
    met = 0
    for _ in range(300):
        line = " ".join(draw.choice(words) + draw.choice(["", "a", "xth", "or"]) for _ in range(6))
        after = cut(new, line)
        assert [index for new_id in after for index in pieces.get(new_id, [new_id])] == cut(old, line)
        met += len(pieces.keys() & set(after))
    assert met > 300


@pytest.mark.parametrize("family", UNIGRAM)
def test_the_longest_of_several_new_pieces_is_met(family: str) -> None:
    tokens = ["bạn", "bạnx", "ạ", "co", "covid", "გზა", "გზათა"]
    if family == "albert":
        tokens = [token for token in tokens if "ạ" not in token]
    _, new, ids, notes = grown(family, tokens)
    assert [cut(new, f"the {token}, and").count(index) for token, index in zip(tokens, ids, strict=True)] == [1] * len(
        ids
    )
    assert notes == []


@pytest.mark.parametrize("name", ["vocab.txt", "vocab.json"])
def test_older_files_with_the_vocabulary_follow(name: str) -> None:
    folder = build_family("bert", Path("old"))
    vocabulary = read_spec(folder)["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    (folder / name).write_text("\n".join(ordered) if name == "vocab.txt" else json.dumps(vocabulary))
    new, ids, _ = grow_folder(folder, Path("new"), ["##vid", "[TOOL]"])
    content = Path("new", name).read_text()
    tokens = content.splitlines() if name == "vocab.txt" else list(json.loads(content))
    assert tokens == [*ordered, "##vid", "[TOOL]"]
    assert new.convert_tokens_to_ids(["##vid", "[TOOL]"]) == ids
