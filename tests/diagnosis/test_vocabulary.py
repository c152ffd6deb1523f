"""Vocabularies that do not fit their table, marks of chat templates, static tables, tokenizers that are not built."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from decone.diagnosis.checks import check_limits
from decone.diagnosis.result import ScanResult
from decone.diagnosis.scan import scan
from decone.document import Document, html, markdown, terminal

SIZE = 300


def word_level(size: int = SIZE, *marks: str, **ids: int) -> Tokenizer:
    """One token per row and `marks` behind them; `ids` change or add some."""
    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size)} | ids, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return tokenizer


def table(rows: int) -> torch.Tensor:
    """Rows that share a structure, as trained ones do."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 8, generator=generator) @ torch.randn(8, 32, generator=generator)


def folder(path: Path, tokenizer: Tokenizer | None, weight: torch.Tensor, **files: Any) -> str:
    """A Llama of one table; each file by its name without .json."""
    path.mkdir(exist_ok=True)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    save_file({"model.embed_tokens.weight": weight}, path / "model.safetensors")
    for name, content in {"config": config | {"vocab_size": len(weight)}, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save(str(path / "tokenizer.json"))
    return str(path)


def codes(result: ScanResult) -> dict[str, str]:
    return {finding.code: finding.severity for finding in result.findings}


def finding(result: ScanResult, code: str) -> Any:
    return next(finding for finding in result.findings if finding.code == code)


def ids(result: ScanResult, kind: str) -> list[int]:
    return next((rows.ids for rows in result.rows if rows.kind == kind), [])


def test_tokens_beyond_the_table_are_counted_and_named_with_the_mend(tmp_path: Path) -> None:
    result = scan(folder(tmp_path, word_level(SIZE, "<zq1>", "<zq2>"), table(SIZE)))
    beyond = finding(result, "beyond")
    assert beyond.severity == "serious"
    assert beyond.meaning.startswith("2 tokens have ids beyond the table of 300 rows: <zq1> (300), <zq2> (301).")
    assert "resize_token_embeddings(302)" in beyond.remedy
    assert "decone repair rows MODEL --ids 300,301 --init mean" in beyond.remedy
    assert ids(result, "beyond") == [300, 301]
    assert [check.passed for check in check_limits(result, {"beyond": 1.0})] == [False]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens", {"<pad>": SIZE}),
        ("special_tokens_map", {"pad_token": "<pad>"}),
        ("tokenizer_config", {"pad_token": {"__type": "AddedToken", "content": "<pad>"}}),
        ("tokenizer_config", {"added_tokens_decoder": {str(SIZE): {"content": "<pad>"}}}),
        ("tokenizer_config", {"additional_special_tokens": ["<pad>"]}),
    ],
)
def test_a_token_that_transformers_adds_when_it_loads_lies_beyond(
    name: str, content: dict[str, Any], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    path = folder(tmp_path, word_level(), table(SIZE), **{name: content})
    assert transformers.AutoTokenizer.from_pretrained(path).get_vocab()["<pad>"] == SIZE
    assert ids(scan(path), "beyond") == [SIZE]


def test_a_vocab_txt_longer_than_the_table(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{index}" for index in range(SIZE))]
    tmp_path.joinpath("vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    path = folder(tmp_path, None, table(SIZE), tokenizer_config={"tokenizer_class": "BertTokenizer"})
    assert ids(scan(path), "beyond") == list(range(SIZE, SIZE + 5))


def test_a_table_with_room_for_all_tokens_has_no_such_finding(tmp_path: Path) -> None:
    result = scan(folder(tmp_path, word_level(SIZE, "<zq1>"), table(SIZE + 1)))
    assert not {"beyond", "gap", "shared", "chat", "padded"} & codes(result).keys()


def test_holes_are_not_called_padding(tmp_path: Path) -> None:
    result = scan(folder(tmp_path, word_level(SIZE, far=SIZE + 5), table(SIZE + 8)))
    assert ids(result, "gap") == list(range(SIZE, SIZE + 5))
    assert ids(result, "padded") == [SIZE + 6, SIZE + 7]
    assert result.model.padded == 2
    assert codes(result)["gap"] == "note"


def with_id(path: Path, token: str, index: int) -> ScanResult:
    """Scan of a model whose tokenizer.json has one more entry, which the library itself would not write."""
    model = folder(path, word_level(), table(SIZE))
    spec = json.loads((path / "tokenizer.json").read_text())
    spec["model"]["vocab"][token] = index
    (path / "tokenizer.json").write_text(json.dumps(spec))
    return scan(model)


def test_ids_used_twice_are_named(tmp_path: Path) -> None:
    result = with_id(tmp_path, "twin", 7)
    assert ids(result, "shared") == [7]
    assert codes(result)["shared"] == "note"


def test_an_id_of_a_billion_sizes_nothing(tmp_path: Path) -> None:
    result = with_id(tmp_path, "big", 10**9)
    assert ids(result, "beyond") == [10**9]
    assert "resize" not in finding(result, "beyond").remedy
    assert any("the id 1,000,000,000" in note for note in result.model.notes)


CHATML = "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}{% endfor %}"
MARKS = ("<|im_start|>", "<|im_end|>", "<|user|>", "<|other|>", "</s>")
START, END, USER, OTHER, EOS = range(SIZE, SIZE + 5)
CHAT: dict[str, tuple[dict[str, Any], set[int]]] = {
    "string": ({"tokenizer_config": {"chat_template": CHATML}}, {START, END}),
    "named": (
        {"tokenizer_config": {"chat_template": [{"name": "default", "template": CHATML}, {"name": "x"}, 3]}},
        {START, END},
    ),
    "processor": ({"chat_template": {"chat_template": CHATML}}, {START, END}),
    "jinja": ({"chat_template.jinja": CHATML}, {START, END}),
    "additional": ({"additional_chat_templates/tools.jinja": CHATML}, {START, END}),
    "text": ({"chat_template.jinja": "<|im_start|>{{ m }}{# <|other|> #}"}, {START}),
    "roles": ({"chat_template.jinja": "{{ '<|' + m.role + '|>' }}{% generation %}<|im_end|>"}, {USER, END}),
    "variable": (
        {"chat_template.jinja": "{{ eos_token }}", "tokenizer_config": {"eos_token": {"content": "</s>"}}},
        {EOS},
    ),
    "broken": ({"chat_template.jinja": "<|im_start|>{{ 'open"}, {START}),
    "none": ({}, set()),
}


def chat_model(path: Path, name: str, trained: bool) -> str:
    """A table whose marks are trained, or lie where padding lies that no training has touched."""
    weight = table(SIZE + 30)
    noise = 0.01 * torch.randn(30, 32, generator=torch.Generator().manual_seed(2))
    weight[SIZE + (len(MARKS) if trained else 0) :] = noise[: 30 - (len(MARKS) if trained else 0)]
    files = CHAT[name][0]
    for file, content in files.items():
        if file.endswith(".jinja"):
            (path / file).parent.mkdir(exist_ok=True)
            (path / file).write_text(content, encoding="utf-8")
    json_files = {file: content for file, content in files.items() if not file.endswith(".jinja")}
    return folder(path, word_level(SIZE, *MARKS), weight, **json_files)


@pytest.mark.parametrize("name", CHAT)
def test_untrained_marks_of_a_template_are_a_warning_by_name(name: str, tmp_path: Path) -> None:
    result = scan(chat_model(tmp_path, name, trained=False))
    expected = CHAT[name][1]
    assert set(ids(result, "chat")) == expected
    assert codes(result).get("chat") == ("warning" if expected else None)
    if expected:
        warning = finding(result, "chat")
        assert all(f"{MARKS[index - SIZE]} ({index})" in warning.meaning for index in expected)
        assert "decone repair rows MODEL --ids 30" in warning.remedy


@pytest.mark.parametrize("name", ["string", "roles"])
def test_trained_marks_are_no_warning(name: str, tmp_path: Path) -> None:
    assert "chat" not in codes(scan(chat_model(tmp_path, name, trained=True)))


@pytest.mark.parametrize("end", [True, False])
def test_marks_with_the_row_of_the_end_of_a_text_are_trained(end: bool, tmp_path: Path) -> None:
    weight = table(SIZE + 30)
    weight[SIZE : SIZE + len(MARKS)] = weight[SIZE]
    weight[SIZE + len(MARKS) :] = 0.01 * torch.randn(30 - len(MARKS), 32, generator=torch.Generator().manual_seed(2))
    roles = {"eos_token": MARKS[USER - SIZE]} if end else {}
    files = {"tokenizer_config": {"chat_template": CHATML, **roles}}
    assert ("chat" in codes(scan(folder(tmp_path, word_level(SIZE, *MARKS), weight, **files)))) is not end


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(lambda weight: torch.zeros(2, 32), id="zeros"),
        pytest.param(lambda weight: weight[:SIZE].mean(0).expand(2, 32), id="the same mean row"),
        pytest.param(lambda weight: weight[:SIZE].mean(0) + 1e-4 * torch.randn(2, 32), id="nearly the mean row"),
        pytest.param(lambda weight: torch.full((2, 32), torch.nan), id="not finite"),
    ],
)
def test_marks_as_libraries_leave_them(rows: Any, tmp_path: Path) -> None:
    weight = table(SIZE + 2)
    weight[SIZE:] = rows(weight)
    files = {"tokenizer_config": {"chat_template": CHATML}}
    result = scan(folder(tmp_path, word_level(SIZE, *MARKS[:2]), weight, **files))
    assert ids(result, "chat") == [START, END]


def test_a_template_is_never_run(tmp_path: Path) -> None:
    template = "{% for i in range(10**12) %}{{ cycler.__init__.__globals__.os.system('touch ran') }}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(template)
    scan(folder(tmp_path, word_level(SIZE, *MARKS[:2]), table(SIZE + 2)))
    assert not Path("ran").exists()


def japanese(path: Path) -> str:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"語{index}" for index in range(SIZE - 5))]
    (path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return folder(path, None, table(SIZE), tokenizer_config={"tokenizer_class": "BertJapaneseTokenizer"})


def test_without_the_own_tokenizer_there_are_names_and_no_verdict_on_reach(tmp_path: Path) -> None:
    result = scan(japanese(tmp_path))
    assert (result.model.vocabulary, result.model.reach) == (SIZE, False)
    assert not {"unreachable", "partial"} & {rows.kind for rows in result.rows}
    assert check_limits(result, {"unreachable": 1e9})[0].passed is False  # what is not known is not passed


def in_terminal(document: Document) -> str:
    file = StringIO()
    Console(file=file, width=100).print(terminal.render(document))
    return file.getvalue()


@pytest.mark.parametrize("render", [html.page, in_terminal, markdown.render])
def test_each_view_says_why_there_is_no_verdict(render: Any, tmp_path: Path) -> None:
    sentence = "no verdict on which tokens a text reaches"
    assert sentence in " ".join(render(scan(japanese(tmp_path)).to_document()).split())


def test_the_json_says_why_there_is_no_verdict(tmp_path: Path) -> None:
    assert any("no verdict on which tokens a text reaches" in note for note in scan(japanese(tmp_path)).model.notes)


def test_a_text_is_not_counted_with_a_guessed_tokenizer(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("語1 語2\n" * 100, encoding="utf-8")
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="give --counts FILE"):
        scan(japanese(tmp_path / "model"), text=text)


STATIC = {"type": "sentence_transformers.models.StaticEmbedding"}
LAYOUTS: dict[str, tuple[str, str, list[dict[str, str]] | None]] = {
    "root": ("", "embedding.weight", [{"path": "", **STATIC}]),
    "module": ("0_StaticEmbedding", "embedding.weight", [{"path": "0_StaticEmbedding", **STATIC}]),
    "new class": ("0_X", "embedding.weight", [{"path": "0_X", "type": "sentence_transformers.base.x.StaticEmbedding"}]),
    "alone": ("", "embedding.weight", None),
    "model2vec": ("", "embeddings", None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_static_embeddings_are_scanned_like_any_table(layout: str, tmp_path: Path) -> None:
    subfolder, name, modules = LAYOUTS[layout]
    home = tmp_path / subfolder
    home.mkdir(exist_ok=True)
    save_file({name: table(SIZE + 2)}, home / "model.safetensors")
    word_level().save(str(home / "tokenizer.json"))
    if modules is not None:
        (tmp_path / "modules.json").write_text(json.dumps(modules))
    if layout == "model2vec":
        (tmp_path / "config.json").write_text('{"model_type": "model2vec", "architectures": ["StaticModel"]}')
    result = scan(tmp_path)
    assert (result.model.family, result.model.kind, result.model.embedding) == ("static", "encoder", name)
    assert (result.model.rows, result.model.vocabulary, result.model.padded) == (SIZE + 2, SIZE, 2)
    assert (result.model.head, result.model.tied, [*result.tables]) == (None, False, ["embedding"])


def test_a_static_embedding_of_sentence_transformers(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    module = StaticEmbedding(word_level(), embedding_dim=16)
    library.SentenceTransformer(modules=[module], device="cpu").save(str(tmp_path))
    result = scan(tmp_path)
    assert (result.model.family, result.model.rows, result.model.width) == ("static", SIZE, 16)


def test_a_quantised_vocabulary_has_rows_without_tokens_of_their_own(tmp_path: Path) -> None:
    tensors = {"embeddings": table(20), "mapping": torch.arange(SIZE) % 20, "weights": torch.rand(SIZE)}
    save_file(tensors, tmp_path / "model.safetensors")
    word_level().save(str(tmp_path / "tokenizer.json"))
    result = scan(tmp_path)
    assert result.model.vocabulary is None
    assert sum("mapping" in note or "weight of its token" in note for note in result.model.notes) == 2
    assert "beyond" not in codes(result)


def test_a_transformer_in_the_folder_of_its_module(tmp_path: Path) -> None:
    folder(tmp_path / "0_Transformer", word_level(), table(SIZE))
    modules = [{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert scan(tmp_path).model.family == "llama"


OUTSIDE = '[{"path": "../out", "type": "a.StaticEmbedding"}]'


@pytest.mark.parametrize("modules", ["[]", "{", "[{}]", "3", OUTSIDE, "[" * 9999])
def test_broken_modules_are_refused_in_a_sentence(modules: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(ValueError, match=r"holds neither|lies outside it"):
        scan(tmp_path)
