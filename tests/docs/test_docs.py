"""The documentation: complete, with links that lead somewhere, and with code that runs."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import cosmic
from cosmic import exact, ops, presets
from cosmic.cli.main import make_parser

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
#: Files of the top level that are pages of the site.
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
FILES = {str(path.relative_to(ROOT)): path for path in (*PAGES, *TOP)}

LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:\A|\n\n)((?: {4}.*\n)+)")


def without_code(text: str) -> str:
    return INDENTED.sub("\n\n", FENCE.sub("", text))


# ---- nothing is left out ------------------------------------------------------------------------


def test_every_page_is_in_the_nav_once() -> None:
    config = (DOCS / "mkdocs" / "mkdocs.yml").read_text()
    nav = re.findall(r"^ +- .+: (\S+\.md)$", config.partition("\nnav:\n")[2], re.MULTILINE)
    pages = [path.relative_to(DOCS).as_posix() for path in PAGES]
    assert sorted(nav) == sorted([*pages, *(path.name.lower() for path in TOP)])


def programs() -> list[str]:
    """Files of bench/ that are started by name."""
    return [
        path.name
        for path in sorted((ROOT / "bench").glob("*.py"))
        if any(
            isinstance(node, ast.FunctionDef) and node.name == "main"
            for node in ast.parse(path.read_text()).body
        )
    ]


def test_every_benchmark_is_on_its_page_with_its_command() -> None:
    page = (DOCS / "benchmarks.md").read_text()
    assert set(re.findall(r"^ {4}python bench/(\S+)", page, re.MULTILINE)) == set(programs())


def test_every_picture_is_shown() -> None:
    text = "\n".join(path.read_text() for path in PAGES)
    shown = set(re.findall(r"!\[[^]]+\]\((?:\.\./)*images/(\S+)\)", text))
    assert shown == {path.name for path in (DOCS / "images").iterdir()}


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE)) | set(
        re.findall(r"`(cosmic\.__version__)`", text)
    )
    public = {f"cosmic.{name}" for name in cosmic.__all__}
    rooms = {"presets": presets.__all__, "exact": exact.__all__}
    assert shown >= public | {f"cosmic.{room}.{n}" for room, names in rooms.items() for n in names}


@pytest.mark.parametrize("name", ops.__all__)
def test_an_operators_schema_is_as_its_documentation_says(name: str) -> None:
    text = " ".join((inspect.getdoc(getattr(ops, name)) or "").split())
    assert str(getattr(torch.ops.cosmic, name).default._schema) in text


def test_the_build_is_documented_as_it_is() -> None:
    stub = ast.parse((ROOT / "python" / "cosmic" / "_core.pyi").read_text())
    (function,) = (n for n in stub.body if isinstance(n, ast.FunctionDef) if n.name == "build_info")
    named = set(re.findall(r"``(\w+)``", ast.get_docstring(function) or ""))
    assert set(cosmic._core.build_info()) == named - {"COSMIC_ISA"}


# ---- links, on GitHub ---------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives a file's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", FILES)
def test_every_link_leads_somewhere(name: str) -> None:
    path = FILES[name]
    for link in LINK.findall(without_code(path.read_text())):
        target, _, anchor = link.partition("#")
        if target.startswith(("https:", "http:")):
            continue
        to = (path.parent / target).resolve() if target else path
        assert to.exists() and to.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(to), link


# ---- commands and code --------------------------------------------------------------------------


def commands(path: Path) -> Iterator[list[str]]:
    for block in INDENTED.findall(FENCE.sub("", path.read_text())):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("cosmic "):
                yield shlex.split(line, comments=True)[1:]


def test_every_command_line_is_understood() -> None:
    found = [words for path in FILES.values() for words in commands(path)]
    assert {words[0] for words in found} == {"digest", "finetune", "info", "plan", "report"}
    for words in found:
        make_parser().parse_args(words)  # exits with a message where an option is not known


class Model(nn.Module):
    """What a page calls ``model`` without saying: it returns its loss, as transformers' do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(600, 32)
        self.head = nn.Linear(32, 600)

    def forward(self, tokens: Tensor) -> Any:
        logits = self.head(self.embedding(tokens))
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits, tokens))


def taken_for_granted() -> dict[str, Any]:
    """A model, batches and the imports of one line."""
    batches = [torch.randint(600, (8,)) for _ in range(3)]
    return {"model": Model(), "batches": batches, "Cosmic": cosmic.Cosmic}


def taken_by_name() -> dict[str, Any]:
    """The same on pages where the model is one of transformers, with an optimizer and loaders."""
    config = transformers.GPT2Config(
        vocab_size=600, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    ids = torch.randint(600, (3, 2, 8))
    batches = [{"input_ids": some, "labels": some} for some in ids]
    return {
        "model": model, "batches": batches, "batch": batches[0], "Cosmic": cosmic.Cosmic,
        "optimizer": cosmic.Cosmic(model.parameters()), "loader": batches,
        "train_loader": batches, "val_loader": batches,
    }  # fmt: skip


def examples(path: Path) -> list[tuple[str, str | None]]:
    """Blocks of Python, with what the block of text right after each says that it prints."""
    text = path.read_text()
    out = []
    for block in FENCE.finditer(text):
        if block[1] == "python":
            after = FENCE.match(text[block.end() :].lstrip())
            out.append((block[2], after[2] if after and after[1] == "text" else None))
    return out


#: Run, with what they need around them, by tests/clients/test_snippets.py and
#: tests/engines/test_engine_snippets.py.
ELSEWHERE = {"docs/clients.md", "docs/engines.md"}


@pytest.mark.parametrize(
    "name", [name for name, path in FILES.items() if examples(path) and name not in ELSEWHERE]
)
def test_every_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_threads: Any
) -> None:
    """In the order of the page."""
    monkeypatch.chdir(tmp_path)
    set_threads(1)
    torch.manual_seed(0)
    by_name = "model(**batch)" in FILES[name].read_text()
    names = taken_by_name() if by_name else taken_for_granted()
    load = cosmic.load_model
    monkeypatch.setattr(
        cosmic, "load_model", lambda n, *a, **k: names["model"] if "/" in n else load(n, *a, **k)
    )  # one from a hub
    for number, (source, printed) in enumerate(examples(FILES[name])):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(source, f"{name}, example {number}", "exec"), names)
        if printed is not None:
            assert out.getvalue() == printed


def test_no_text_is_printed_by_no_example() -> None:
    """A block of text is what an example prints, and is compared with it."""
    for name, path in FILES.items():
        texts = [block for kind, block in FENCE.findall(path.read_text()) if kind == "text"]
        assert texts == [printed for _, printed in examples(path) if printed is not None], name
