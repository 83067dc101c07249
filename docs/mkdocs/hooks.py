"""What MkDocs is told beside mkdocs.yml: pages from the top level, and links out of docs/.

Every link in a Markdown file is the one that works on GitHub; here it becomes the site's.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
#: Files of the top level that are pages.
PAGES = {name: f"{Path(name).stem.lower()}.md" for name in
         ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}  # fmt: skip

_LINK = re.compile(r"(!?)\[((?:[^][]|\[[^][]*\])*)\]\(([^()\s#:]+)(#[^()\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the top level."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links between files links between pages."""
    source = page.file.src_uri
    own = {page: name for name, page in PAGES.items()}.get(source, f"docs/{source}")
    return _LINK.sub(lambda link: _rewritten(link, own, source, config.repo_url), markdown)


def _rewritten(link: re.Match[str], own: str, source: str, repository: str | None) -> str:
    """A link in the file ``own`` of the repository, which is the page ``source``."""
    image, text, path, anchor = link[1], link[2], link[3], link[4] or ""
    target = os.path.normpath(os.path.join(os.path.dirname(own), path))
    if not (ROOT / target).exists():
        return link[0]  # strict mode will tell
    if target in PAGES or target.startswith("docs/"):
        to = PAGES.get(target, target.removeprefix("docs/"))
        return f"{image}[{text}]({os.path.relpath(to, os.path.dirname(source) or '.')}{anchor})"
    # Sources are no pages: a link to the repository, where it is known.
    return f"[{text}]({repository.rstrip('/')}/blob/main/{target})" if repository else text
