"""Opens every page of the built site in headless Chromium, at a desk's width and at a phone's.

python scripts/look_at_site.py docs/build [--pictures DIR]     # needs chromium and chromedriver

Fails on a console error, a page wider than its window, a dead internal link or anchor, a file
fetched from the network, or a search that finds nothing. Without Chromium only links and size are
checked.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

MAX_BYTES = 6_000_000
WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
PORT = 9519
# What reaches over the window's right edge, and cannot be scrolled to by itself.
STICKING_OUT = """
const found = [];
if (document.documentElement.scrollWidth > innerWidth) found.push("wider than the window");
for (const element of document.querySelectorAll(".bd-article *")) {
  const box = element.getBoundingClientRect();
  if (box.width && box.right > innerWidth + 1) {
    let parent = element;
    while (parent && !["auto", "scroll"].includes(getComputedStyle(parent).overflowX))
      parent = parent.parentElement;
    if (!parent || parent === document.body) found.push(element.outerHTML.slice(0, 80));
  }
}
return found;
"""


class Page(HTMLParser):
    """Where a page's links lead, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag's link and anchor."""
        found = dict(attrs)
        self.anchors |= {found[key] or "" for key in ("id", "name") if key in found}
        if tag == "a":
            self.links.append(found.get("href") or "")
        elif tag in ("img", "script", "link") and found.get("rel") != "canonical":
            self.fetched.append(found.get("src") or found.get("href") or "")


def check_links(site: Path) -> list[str]:
    """Return what is wrong with links, files and size."""
    pages = {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        for link in (*page.links, *page.fetched):
            if re.match(r"(https?:)?//", link):
                if link in page.fetched:
                    wrong.append(f"{path}: fetches {link}")
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            if link.startswith(("mailto:", "data:")):
                continue
            if not target.exists():
                wrong.append(f"{path}: {link} leads nowhere")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                wrong.append(f"{path}: {link}: there is no such anchor")
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    print(f"{len(pages)} pages, {size / 1e6:.2f} MB")
    return [*wrong, *([f"{size} bytes, over {MAX_BYTES}"] if size > MAX_BYTES else [])]


class Browser:
    """A Chromium behind its driver, of one window's size."""

    def __init__(self, size: tuple[int, int]) -> None:
        width, height = size
        metrics = {"width": width, "height": height, "pixelRatio": 1, "mobile": width < 600}
        options: dict[str, Any] = {
            "args": ["--headless=new", "--no-sandbox", f"--window-size={width},{height}"],
            "binary": shutil.which("chromium"),
        }
        if width < 600:
            options["mobileEmulation"] = {"deviceMetrics": metrics}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        made = self.post("session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"session/{made['sessionId']}/"

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a command to the driver."""
        url = f"http://127.0.0.1:{PORT}/{path if path == 'session' else self.session + path}"
        request = urllib.request.Request(url, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def run(self, script: str) -> Any:
        """Return what JavaScript returns."""
        return self.post("execute/sync", {"script": script, "args": []})

    def errors(self) -> list[str]:
        """Return what the console said since the last call."""
        entries = self.post("se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def picture(self, path: Path) -> None:
        """Write what the window shows."""
        url = f"http://127.0.0.1:{PORT}/{self.session}screenshot"
        with urllib.request.urlopen(url, timeout=60) as answer:
            path.write_bytes(base64.b64decode(json.loads(answer.read())["value"]))


def look(site: Path, pictures: Path | None) -> list[str]:
    """Return what Chromium finds wrong."""
    wrong = []
    for name, size in WIDTHS.items():
        browser = Browser(size)
        for path in sorted(site.rglob("*.html")):
            browser.post("url", {"url": path.resolve().as_uri()})
            label = path.relative_to(site).as_posix()
            wrong += [f"{name}: {label}: {error}" for error in browser.errors()]
            wrong += [f"{name}: {label}: {text}" for text in browser.run(STICKING_OUT)]
            if pictures is not None:
                browser.picture(pictures / f"{name}-{label.replace('/', '-')}.png")
        query = (site / "search.html").resolve().as_uri() + "?q=calibration"
        browser.post("url", {"url": query})
        for _ in range(50):
            found = browser.run("return document.querySelectorAll('#search-results li a').length")
            if found:
                break
            time.sleep(0.1)
        print(f"{name}: a search for 'calibration' finds {found} places")
        wrong += [] if found else [f"{name}: the search finds nothing"]
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/{browser.session[:-1]}", method="DELETE"
        )
        urllib.request.urlopen(request, timeout=60).close()
    return wrong


def main() -> int:
    """Check the site; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--pictures", type=Path, help="write a picture of each window here")
    options = parser.parse_args()
    wrong = check_links(options.site.resolve())
    driver = shutil.which("chromedriver")
    if driver is None:
        print("chromedriver is not installed: only links and size were checked")
    else:
        if options.pictures is not None:
            options.pictures.mkdir(parents=True, exist_ok=True)
        with subprocess.Popen([driver, f"--port={PORT}", "--silent"]) as process:
            try:
                time.sleep(2)
                wrong += look(options.site, options.pictures)
            finally:
                process.terminate()
    print("\n".join(wrong) or "nothing is wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
