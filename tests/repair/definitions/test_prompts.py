"""What a model reads of a definition, in the tokens of five families."""

import itertools

import pytest
from tests.repair.definitions.worlds import FAMILIES, TOLD, WORDS, glosses, tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from decone.data.lexicons import Lexicon, Sense
from decone.repair.alignment.align import AlignmentSettings, HostWord, align
from decone.repair.alignment.result import TokenEntry
from decone.repair.alignment.surfaces import surfaces
from decone.repair.definitions.prompts import Prompt, PromptWriter, collate, length_batches
from decone.repair.definitions.recipe import DefinitionRecipe

WORD = WORDS[0]
MASK = {"bert": "[MASK]", "albert": "[MASK]", "roberta": "<mask>", "bart": "<mask>", "t5": "<extra_id_0>"}


def writer(family: str = "bert", limit: int = 64, mask: str | None = None, **settings: object) -> PromptWriter:
    return PromptWriter(tokenizer(family)[0], DefinitionRecipe(**settings), limit, mask)  # type: ignore[arg-type]


def entry(made: PromptWriter, *texts: str, word: str = WORD, host: HostWord | None = None) -> TokenEntry:
    """A token's definitions; the token is the word as the tokenizer writes it within a text."""
    known = surfaces(made.tokenizer)
    id = next(id for id, surface in enumerate(known) if surface.text == word and not surface.inner)
    return TokenEntry(id, known[id], "exact", tuple(Sense(word, text) for text in texts), host)


def tokens(made: PromptWriter, prompt: Prompt) -> list[str | None]:
    return [made.tokenizer.id_to_token(id) for id in prompt.ids]


def test_word_pieces_by_hand() -> None:
    made = writer()
    text = "boka kali: boka"
    (prompt,) = made.write([entry(made, text)])
    assert prompt.ids[:3] == (2, 4, 6)
    assert prompt.ids[-1] == 3  # [CLS] [MASK] : ... [SEP]
    assert (prompt.masks, prompt.slots, prompt.pieces) == ((1,), (0,), (prompt.id,))
    assert list(prompt.ids[slice(*prompt.gloss)]) == made.tokenizer.encode(text, add_special_tokens=False).ids
    assert prompt.gloss == (3, len(prompt.ids) - 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_marks_slots_colon_and_definition(family: str) -> None:
    """The same tokens as the whole text has, but for the word, which stands as its mask."""
    made = writer(family, prompt_tokens=64)
    for word, text in itertools.islice(glosses().items(), 12):
        (prompt,) = made.write([entry(made, text, word=word)])
        mask = made.tokenizer.token_to_id(MASK[family])
        assert [place for place, id in enumerate(prompt.ids) if id == mask] == list(prompt.masks)
        whole = tokenizer(family)[0].encode(f"{'' if family in ('roberta', 'bart') else ' '}: {text}").ids
        assert [id for id in prompt.ids if id != mask] == whole
        inside = tokenizer(family)[0].encode(f": {text}", add_special_tokens=False).ids
        behind = list(prompt.ids[slice(*prompt.gloss)])
        assert inside[-len(behind) :] == behind
        assert made.tokenizer.decode(behind).split() == text.split()
    assert not made.tally


def test_several_senses() -> None:
    texts = ("boka", "kali kali", "meno")
    joined, each, first = (writer(senses=way) for way in ("joined", "mean", "first"))
    (prompt,) = joined.write([entry(joined, *texts)])
    assert tokens(joined, prompt)[3:-1] == ["boka", ";", "kali", "kali", ";", "meno"]
    assert [tokens(each, prompt)[3:-1] for prompt in each.write([entry(each, *texts)])] == [
        ["boka"],
        ["kali", "kali"],
        ["meno"],
    ]
    assert len(first.write([entry(first, *texts)])) == 1
    few = writer(senses="mean", most=2)
    assert len(few.write([entry(few, *texts)])) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_definition_that_names_its_token(family: str) -> None:
    """By ids: masked, kept or gone, whatever the case, and only as a whole word."""
    text = f"dola {WORD} ({WORD.upper()}), {WORD}es {WORD}-dola"
    found = {}
    for way in ("mask", "keep", "drop"):
        made = writer(family, mention=way)
        (prompt,) = made.write([entry(made, text)])
        found[way] = list(prompt.ids[slice(*prompt.gloss)])
        assert made.tally == {"definition names its token": 1}
    id = entry(made, text).id
    mask = made.tokenizer.token_to_id(MASK[family])
    assert id in found["keep"]
    assert mask not in found["keep"]
    assert mask not in found["drop"]
    assert found["mask"].count(mask) == 3  # each mention is one mask, of however many pieces
    assert [index for index in found["mask"] if index != mask] == found["drop"]
    left = made.tokenizer.decode(found["drop"]).replace(" ##", "").replace(" ", "").lower()
    assert left.count(WORD) == 1
    assert f"{WORD}es" in left  # another word


def test_a_definition_of_its_token_alone() -> None:
    dropped = writer(mention="drop")
    assert dropped.write([entry(dropped, WORD)]) == []
    masked = writer()
    (prompt,) = masked.write([entry(masked, WORD)])
    assert prompt.ids == (2, 4, 6, 4, 3)
    assert prompt.masks == (1,)  # the second mask is no slot


def test_names_of_special_tokens_in_a_definition_are_text() -> None:
    """A lexicon cannot put a second slot, an end or an unknown mark into what a model reads."""
    for family in FAMILIES:
        made = writer(family)
        (prompt,) = made.write([entry(made, f"dola {MASK[family]} [SEP] </s> <s> dola")])
        marks = {token.content for token in made.tokenizer.get_added_tokens_decoder().values() if token.special}
        inside = [made.tokenizer.id_to_token(id) for id in prompt.ids[slice(*prompt.gloss)]]
        assert not (marks - {"[UNK]", "<unk>"}) & set(inside)
        assert str(inside[0]).endswith("dola")
        assert str(inside[-1]).endswith("dola")


def test_long_definitions_are_cut_on_the_right_and_slots_never() -> None:
    made = writer(limit=12, gloss_tokens=40)
    (prompt,) = made.write([entry(made, " ".join(TOLD))])
    assert tokens(made, prompt) == ["[CLS]", "[MASK]", ":", *TOLD[:8], "[SEP]"]
    assert made.tally["definition cut"] == 1
    few = writer(gloss_tokens=5)
    (prompt,) = few.write([entry(few, " ".join(TOLD))])
    assert prompt.gloss == (3, 8)
    assert tokens(few, prompt)[3:8] == TOLD[:5]
    assert few.tally["definition cut"] == 1
    assert writer(prompt_tokens=9).limit == 9
    assert writer(limit=7, prompt_tokens=9).limit == 7


def test_a_word_whose_slots_do_not_fit_is_left_out_and_counted() -> None:
    made = writer(limit=8)
    ids = tuple(made.tokenizer.encode("bokakalix", add_special_tokens=False).ids)
    known = surfaces(made.tokenizer)
    host = HostWord("bokakalix", ids, len(ids) - 1, (Sense("bokakalix", "dola"),))
    piece = TokenEntry(ids[-1], known[ids[-1]], "host", host.senses, host)
    assert len(ids) > 4
    assert made.write([piece, entry(made, "dola")])[0].id != ids[-1]
    assert made.tally == {"word too long for a prompt": 1}


def test_a_piece_is_read_at_its_place_in_a_word() -> None:
    """All pieces are masked, each place of the piece is a slot, and the word is not named."""
    made = writer()
    ids = tuple(made.tokenizer.encode("xbabax", add_special_tokens=False).ids)
    assert made.tokenizer.encode("xbabax", add_special_tokens=False).tokens == ["x", "##b", "##a", "##b", "##a", "##x"]
    surface = surfaces(made.tokenizer)[ids[2]]
    host = HostWord("xbabax", ids, 2, (Sense("xbabax", "dola xbabax a"),))
    (prompt,) = made.write([TokenEntry(ids[2], surface, "host", host.senses, host)])
    assert prompt.masks == tuple(range(1, 7))
    assert prompt.slots == (2, 4)
    assert prompt.pieces == ids
    assert tokens(made, prompt)[8:-1] == [
        "dola",
        "[MASK]",
        "a",
    ]  # the word is hidden, a letter by itself is another one
    batch = collate([prompt], 0)
    assert batch.slots[0].nonzero().squeeze(1).tolist() == [3, 5]
    decoded = collate([prompt], 0, 9)
    assert decoded.decoder is not None
    assert decoded.decoder[0].tolist() == [9, *ids[:-1]]  # gold pieces, shifted
    assert decoded.slots[0].tolist() == [False, False, True, False, True, False]


def test_the_pieces_of_an_alignment() -> None:
    made = writer()
    found = align(made.tokenizer, Lexicon.of(glosses() | {"dokusa": "boka"}), settings=AlignmentSettings(pieces=True))
    hosted = [entry for entry in found.entries.values() if entry.host is not None]
    assert hosted
    for prompt, one in zip(made.write(hosted), hosted, strict=True):
        assert [prompt.pieces[slot] for slot in prompt.slots] == [one.id] * len(prompt.slots)
        assert prompt.slots
        assert all(prompt.ids[place] == made.mask for place in prompt.masks)


def test_masks() -> None:
    bare = Tokenizer(models.WordLevel({"a": 0, ":": 1, ";": 2, "blank": 3}, unk_token="a"))
    with pytest.raises(ValueError, match=r"the tokenizer has no mask token .* name one: --mask TOKEN"):
        PromptWriter(bare, DefinitionRecipe(), 64)
    with pytest.raises(ValueError, match="the tokenizer has no <hole> token"):
        PromptWriter(bare, DefinitionRecipe(), 64, "<hole>")
    assert PromptWriter(bare, DefinitionRecipe(), 64, "blank").mask == 3


def test_the_tokenizer_is_left_as_it_is() -> None:
    given = tokenizer("bert")[0]
    given.enable_truncation(4)
    given.enable_padding(length=4)
    before = given.to_str()
    made = PromptWriter(given, DefinitionRecipe(), 64)
    (prompt,) = made.write([entry(made, "boka kali boka kali boka")])
    assert len(prompt.ids) == 4 + len(made.tokenizer.encode("boka kali boka kali boka", add_special_tokens=False).ids)
    assert given.to_str() == before
    assert given.encode_special_tokens is False


def test_a_tokenizer_of_older_files_gets_its_marks() -> None:
    """vocab.txt says nothing of what stands around a text; transformers puts the usual two."""
    made = Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3, ":": 4, ";": 5, "a": 6}))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    found = PromptWriter(made, DefinitionRecipe(), 64)
    assert (found.start, found.end) == ([1], [2])
    made.post_processor = processors.TemplateProcessing("$A [SEP]", None, [("[SEP]", 2)])
    found = PromptWriter(made, DefinitionRecipe(), 64)
    assert (found.start, found.end) == ([], [2])  # what a tokenizer says itself counts


def test_batches() -> None:
    short = Prompt(7, (1, 4, 6, 9, 2), (1,), (3, 4), (7,), (0,))
    long = Prompt(8, (1, 4, 4, 6, 9, 9, 9, 2), (1, 2), (4, 7), (5, 8), (1,))
    batch = collate([short, long], 0)
    assert batch.ids.tolist() == [[1, 4, 6, 9, 2, 0, 0, 0], list(long.ids)]
    assert batch.attention.tolist() == [[1] * 5 + [0] * 3, [1] * 8]
    assert batch.slots.nonzero().tolist() == [[0, 1], [1, 2]]
    assert batch.gloss.nonzero().tolist() == [[0, 3], [1, 4], [1, 5], [1, 6]]
    assert batch.decoder is None
    decoded = collate([short, long], 3, 11)
    assert decoded.decoder is not None
    assert decoded.decoder.tolist() == [[11, 3], [11, 5]]
    assert decoded.slots.tolist() == [[True, False], [False, True]]
    assert decoded.ids[0, 5:].tolist() == [3, 3, 3]
    assert length_batches([long, short, long, short, short], 2) == [[1, 3], [4, 0], [2]]
    assert batch.to(batch.ids.device).ids.tolist() == batch.ids.tolist()
