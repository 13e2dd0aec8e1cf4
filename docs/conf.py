"""How Sphinx makes the site of docs/: `make docs` builds it; nothing is fetched, then or later."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
from pathlib import Path

from sphinx.application import Sphinx

from edgevision.cli import parser

ROOT = Path(__file__).resolve().parents[1]

project = "edgevision"
author = "The edgevision contributors"
release = importlib.metadata.version("edgevision")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# A block of shell or text is what it is: no lexer has to like it.
suppress_warnings = ["misc.highlighting_failure"]
exclude_patterns = ["build"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 72

html_theme = "pydata_sphinx_theme"
html_title = "edgevision"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "show_prev_next": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "article_footer_items": [],
}
copyright = "The edgevision contributors, Apache-2.0"
html_sidebars = {"index": [], "start": [], "troubleshooting": []}

# Files of the repository that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/photos/ATTRIBUTION.md": "photos.md",
    "deploy": "howto/ci.md",
    "deploy/ci": "howto/ci.md",
    "deploy/docker": "start.md",
    "deploy/systemd": "howto/jetson.md",
    "docs/adr": "adr/index.md",
    **{f"checkpoints/{p.parent.name}/README.md": f"nets/{p.parent.name}.md"
       for p in ROOT.glob("checkpoints/*/README.md")},
}  # fmt: skip
# Pages whose text is another file of the repository.
TEXTS = {page.removesuffix(".md"): ROOT / file for file, page in PAGES.items()
         if file.endswith(".md") and page != "index.md"}  # fmt: skip
# Pages that say where the others stand; what lies in docs/ and stands in none is put under More.
TREES = ("index.md", "howto/index.md", "more.md")
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")


def to_site(text: str, file: Path, page: Path) -> str:
    """Return a page's text with the links of `file` as `page`, both under the root, needs them."""

    def link(match: re.Match[str]) -> str:
        target = (file.parent / match[1]).resolve()
        try:
            name = target.relative_to(ROOT).as_posix()
        except ValueError:
            return match[1]
        target = ROOT / "docs" / PAGES[name] if name in PAGES else target
        return _relative(target, page.parent)

    return _LINK.sub(link, text)


def _relative(target: Path, folder: Path) -> str:
    ups = next(i for i, parent in enumerate((folder, *folder.parents)) if parent in target.parents)
    base = (folder, *folder.parents)[ups]
    return "../" * ups + target.relative_to(base).as_posix()


def _command_line() -> str:
    """Return the help of every verb, as it is printed."""
    os.environ["COLUMNS"] = "88"
    (verbs,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    parts = [f"```text\n{parser().format_help()}```"]
    parts += [
        f"## edgevision {name}\n\n```text\n{verb.format_help()}```"
        for name, verb in verbs._name_parser_map.items()
    ]
    return "\n\n".join(parts)


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    if name == "reference/command-line":
        source[0] += f"\n{_command_line()}\n"
    page = Path(app.srcdir) / f"{name}.md"
    if name == "more":
        listed = "\n".join((Path(app.srcdir) / f).read_text("utf-8") for f in TREES)
        found = sorted({p.stem for p in Path(app.srcdir).glob("*.md")} - {"index"})
        others = [n for n in found if not re.search(rf"^(\.\./)?{n}$", listed, re.MULTILINE)]
        source[0] = re.sub(r"^% .*$", "\n".join(others), source[0], flags=re.MULTILINE)
    file = TEXTS.get(name, page)
    source[0] = to_site(file.read_text("utf-8") if name in TEXTS else source[0], file, page)


def _drop_maps(app: Sphinx, error: Exception | None) -> None:
    """Remove what only the theme's authors read: source maps, a third of the site; a template."""
    templates = Path(app.outdir).glob("_static/webpack-macros.html")
    for path in (*Path(app.outdir).rglob("*.map"), *templates):
        path.unlink()


def setup(app: Sphinx) -> None:
    """Let every page pass through `to_site`."""
    app.connect("source-read", _read)
    app.connect("build-finished", _drop_maps)
