"""Tiny tokenizers in the pipelines of published families, in folders that transformers loads by their classes."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LINES = ["the cat sat on the mat, a user said hello there (a) by the sea 1 or x and you love them: ban co nam"] * 40
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UNIGRAM = {
    "t5": ("T5Tokenizer", ["<pad>", "</s>", "<unk>", *(f"<extra_id_{index}>" for index in range(100))]),
    "xlm-roberta": ("XLMRobertaTokenizer", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
    "albert": ("AlbertTokenizer", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]),
    "camembert": (
        "CamembertTokenizer",
        ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"],
    ),
}
_CODES = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX "
    "ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
)
UNIGRAM["mbart"] = ("MBartTokenizer", [*UNIGRAM["xlm-roberta"][1], *_CODES.split()])
BYTE_LEVEL = ("gpt2", "llama3", "qwen2")
SENTENCE_PIECE = ("llama", "gemma")
FAMILIES = (*BYTE_LEVEL, *SENTENCE_PIECE, *UNIGRAM, "bert", "words", "characters")


def build_family(family: str, folder: Path) -> Path:
    """Writes the tokenizer of a family, and a configuration that names its model."""
    folder.mkdir(parents=True)
    tokenizer, name = _tokenizer(family)
    tokenizer.save(str(folder / "tokenizer.json"))
    model_type = {"llama3": "llama", "words": "bert", "characters": "bert"}.get(family, family)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    return folder


def _tokenizer(family: str) -> tuple[Tokenizer, str]:
    if family in UNIGRAM:
        return _unigram(family)
    if family in BYTE_LEVEL:
        tokenizer = Tokenizer(models.BPE())
        if family == "gpt2":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        else:
            split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
            letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
        if family == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.decoder = decoders.ByteLevel()
        _train_pairs(tokenizer, ["<|endoftext|>"], pre_tokenizers.ByteLevel.alphabet())
        return tokenizer, {"gpt2": "GPT2Tokenizer", "qwen2": "Qwen2Tokenizer"}.get(family, "PreTrainedTokenizerFast")
    if family in SENTENCE_PIECE:
        return _sentence_piece(family)
    if family == "bert":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=marks, show_progress=False)
        tokenizer.train_from_iterator(LINES, trainer)
        return tokenizer, "BertTokenizer"
    if family == "words":
        tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False)
        tokenizer.train_from_iterator(LINES, trainer)
        return tokenizer, "PreTrainedTokenizerFast"
    letters_of_lines = sorted(set("".join(LINES)))
    vocabulary = {letter: index for index, letter in enumerate(["[UNK]", *letters_of_lines])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer, "PreTrainedTokenizerFast"


def _sentence_piece(family: str) -> tuple[Tokenizer, str]:
    """Byte-pair encoding over characters, with bytes for those that it lacks."""
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"] if family == "gemma" else ["<unk>", "<s>", "</s>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    _train_pairs(trained, [*marks, *(f"<0x{byte:02X}>" for byte in range(256))])
    spec = json.loads(trained.to_str())
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry["content"] in marks]
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if family == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence(pieces)
        return tokenizer, "GemmaTokenizer"
    tokenizer.decoder = decoders.Sequence([*pieces, decoders.Strip(" ", 1, 0)])
    return tokenizer, "PreTrainedTokenizerFast"


def _unigram(family: str) -> tuple[Tokenizer, str]:
    name, marks = UNIGRAM[family]
    tokenizer = Tokenizer(models.Unigram())
    if family == "albert":
        steps = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60 + len(marks), special_tokens=marks, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer, name


def _train_pairs(tokenizer: Tokenizer, marks: Sequence[str], letters: Sequence[str] = ()) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=len(marks) + len(letters) + 60,
        special_tokens=list(marks),
        initial_alphabet=list(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
