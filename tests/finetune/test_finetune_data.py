"""What a comparison trains on: documents, tokens and batches."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from cosmic.finetune import batches, corpus, tokenizing, tokens
from cosmic.finetune.errors import UsageError
from helpers import TEXT

# ---- documents ----------------------------------------------------------------------------


def test_stdlib_split_shares_no_file() -> None:
    files = corpus.stdlib_files()
    held_out = [name for name in files if corpus.is_held_out(name)]
    assert files == sorted(set(files))
    assert 0.05 < len(held_out) / len(files) < 0.2
    assert not any("test" in Path(name).parts for name in files)
    loaded = corpus.load_corpus("python-stdlib")
    assert 0 < len(loaded.validation) <= len(held_out)
    assert 0 < len(loaded.train) <= len(files) - len(held_out)
    # Long files only: a few short ones are copies of each other.
    train = {text for text in loaded.train["text"] if len(text) > 1000}
    assert train.isdisjoint(loaded.validation["text"])


def test_few_documents_are_cut_by_lines_and_nothing_is_lost() -> None:
    train, held_out = corpus.split_tail([TEXT])
    assert "".join(train) + "".join(held_out) == TEXT
    assert len("".join(held_out).splitlines()) == 40


def test_one_long_line_is_cut_between_words() -> None:
    text = " ".join(str(number) for number in range(100))
    train, held_out = corpus.split_tail([text])
    assert train[0] + held_out[0] == text
    assert held_out[0].split() == [str(number) for number in range(90, 100)]


def test_many_documents_stay_whole() -> None:
    documents = [f"document {number}" for number in range(25)]
    train, held_out = corpus.split_tail(documents)
    assert train + held_out == documents
    assert len(held_out) == 2


def test_jsonl_uses_the_field_text(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(json.dumps({"text": f"line {i}", "id": i}) for i in range(20)))
    loaded = corpus.load_corpus(str(file))
    assert list(loaded.train["text"]) == [f"line {i}" for i in range(18)]
    assert list(loaded.validation["text"]) == ["line 18", "line 19"]


@pytest.mark.parametrize("line", ['{"body": "x"}', "[1]", '{"text": 3}', "plain text"])
def test_jsonl_without_text_names_line_and_expectation(line: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(f'{{"text": "good"}}\n{line}\n')
    with pytest.raises(UsageError, match=r'data\.jsonl:2: expected .* string "text"'):
        corpus.load_corpus(str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "is empty"), (b"\xff\xfe\xfa", "cannot be read as UTF-8")],
)
def test_unusable_text_file(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "data.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        corpus.load_corpus(str(file))


class FakeHub:
    """Stands in for `datasets.load_dataset`: rows of a split, or the error that it raises."""

    def __init__(self, **splits: list[str] | Exception) -> None:
        self.splits = splits
        self.asked: list[tuple[str, str | None, str]] = []

    def __call__(self, path: str, config: str | None, *, split: str) -> datasets.Dataset:
        self.asked.append((path, config, split))
        rows = self.splits.get(split.partition("[")[0], ValueError(f"Unknown split {split}"))
        if isinstance(rows, Exception):
            raise rows
        return datasets.Dataset.from_dict({"text": rows, "id": list(range(len(rows)))})


def test_hub_dataset_brings_its_own_validation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHub(train=["", " = Title = \n", "a line\n"], validation=["held out\n"])
    monkeypatch.setattr(datasets, "load_dataset", fake)
    loaded = corpus.load_corpus("wikitext:raw:train[:1%]")
    assert fake.asked == [("wikitext", "raw", "train[:1%]"), ("wikitext", "raw", "validation")]
    assert list(loaded.validation["text"]) == ["held out\n"]
    assert not loaded.separate, "lines of one text, not documents"


def test_hub_dataset_without_validation_gives_its_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"story {number}" for number in range(30)]
    monkeypatch.setattr(datasets, "load_dataset", FakeHub(train=rows))
    loaded = corpus.load_corpus("somebody/stories")
    assert [*loaded.train["text"], *loaded.validation["text"]] == rows
    assert len(loaded.validation) == 3
    assert loaded.separate


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route"), "the Hugging Face Hub does not answer; try --dataset"),
        (FileNotFoundError("none.\nSee x"), "cannot be loaded: none; try --dataset"),
    ],
)
def test_hub_dataset_that_cannot_be_had(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", FakeHub(train=error))
    with pytest.raises(UsageError, match=message):
        corpus.load_corpus("somebody/stories")


def test_hub_dataset_without_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def pairs(*_: object, **__: object) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"question": ["?"], "answer": ["!"]})

    monkeypatch.setattr(datasets, "load_dataset", pairs)
    with pytest.raises(UsageError, match="no column 'text', only question, answer"):
        corpus.load_corpus("somebody/quiz")


# ---- tokens and batches -------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_corpus(tmp_path_factory: pytest.TempPathFactory) -> corpus.Corpus:
    file = tmp_path_factory.mktemp("text") / "data.txt"
    file.write_text(TEXT)
    return corpus.load_corpus(str(file))


def test_trained_tokenizer_keeps_every_byte_and_its_size() -> None:
    tokenizer = tokenizing.train_tokenizer([TEXT], 300)
    assert len(tokenizer) == 300
    text = "fox é 漢\t\x00"  # bytes that the training text never showed
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_vocabulary_too_small_for_bytes() -> None:
    with pytest.raises(UsageError, match="at least 257"):
        tokenizing.train_tokenizer([TEXT], 256)


@pytest.mark.parametrize("separate", [True, False])
def test_documents_are_separated_by_the_end_token(separate: bool) -> None:
    tokenizer = tokenizing.train_tokenizer([TEXT], 300)
    documents = corpus._to_dataset(["one", "", "two"])
    stream = tokenizing.encode(documents, tokenizer, separate)
    ends = (stream == tokenizer.eos_token_id).sum()
    assert ends == (2 if separate else 0)
    assert tokenizer.decode(stream, skip_special_tokens=True) == "onetwo"


def test_packing_drops_only_the_unfilled_end() -> None:
    stream = np.arange(23, dtype=np.int32)
    blocks = tokenizing.pack(stream, 5)
    assert blocks.shape == (4, 5)
    assert np.array_equal(blocks.ravel(), stream[:20])


def test_tokens_on_disk_are_found_again(text_corpus: corpus.Corpus, tmp_path: Path) -> None:
    tokenizer = tokenizing.train_tokenizer([TEXT], 300)
    folder = tokens.cache_folder(tmp_path, "data", 300, 16)
    assert tokens.open_tokens(folder) is None
    written = tokenizing.write_tokens(folder, text_corpus, tokenizer, 16)
    found = tokens.open_tokens(folder)
    assert found == written
    assert found is not None and found.train().shape == (written.train_tokens // 16, 16)
    assert found.validation().max() < 300
    assert [path.name for path in tmp_path.iterdir()] == [folder.name], "no partial folder left"


def test_tokens_of_other_data_have_another_folder(tmp_path: Path) -> None:
    assert tokens.cache_folder(tmp_path, "a", 16) != tokens.cache_folder(tmp_path, "a", 32)


def test_text_shorter_than_a_block(text_corpus: corpus.Corpus, tmp_path: Path) -> None:
    tokenizer = tokenizing.train_tokenizer([TEXT], 300)
    with pytest.raises(UsageError, match="validation text is shorter than one block of 2000"):
        tokenizing.write_tokens(tmp_path / "x", text_corpus, tokenizer, 2000)
    assert not any(tmp_path.iterdir())


def test_every_epoch_shows_every_block_once() -> None:
    drawn = batches.training_batches(blocks=10, batch_size=4, steps=5, seed=1)
    assert drawn.shape == (5, 4)
    assert sorted(drawn.ravel()[:10]) == sorted(drawn.ravel()[10:]) == list(range(10))
    assert np.array_equal(drawn, batches.training_batches(10, 4, 5, seed=1))
    assert not np.array_equal(drawn, batches.training_batches(10, 4, 5, seed=2))


@pytest.mark.parametrize(("blocks", "expected"), [(100, [4, 4, 4]), (6, [4, 2]), (1, [1])])
def test_validation_blocks_differ_and_span_the_text(blocks: int, expected: list[int]) -> None:
    chosen = batches.validation_batches(blocks, batch_size=4, count=3)
    assert [len(batch) for batch in chosen] == expected
    flat = np.concatenate(chosen)
    assert len(set(flat)) == len(flat)
    assert flat.max() < blocks <= flat.max() + blocks / len(flat) + 1
