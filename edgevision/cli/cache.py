"""The verb `cache`: engines that were built before, listed, moved between machines, removed."""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import asdict
from pathlib import Path

from edgevision.cli.exits import OK
from edgevision.cli.terminal import put_json
from edgevision.cli.verbs import Verbs, add_force, verb

_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(kB|MB|GB|TB)?")


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    cache = verb(verbs, "cache", _cache, example="cache prune --max-bytes 2GB")
    cache.add_argument("action", choices=["ls", "export", "import", "prune"])
    cache.add_argument(
        "file",
        type=Path,
        nargs="?",
        help="FILE.tar, of export and import; what is imported is believed: import only your own",
    )
    cache.add_argument("--max-bytes", type=size_bytes, metavar="SIZE", help="of prune, e.g. 2GB")
    cache.add_argument("--cache", type=Path, metavar="DIR", help="default: EDGEVISION_CACHE")
    add_force(cache)


def size_bytes(text: str) -> int:
    """Return the bytes that "500MB" or "2GB" says."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"got '{text}', expected a size such as 500MB or 2GB")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def _cache(options: argparse.Namespace) -> int:
    """List engines that were built before, move them between machines, or remove some."""
    from edgevision.engines.cache import EngineCache
    from edgevision.engines.cache_archive import export_cache, import_cache

    cache = EngineCache(options.cache)
    needs_file = options.action in ("export", "import")
    if needs_file != (options.file is not None):
        raise ValueError(f"cache {options.action}: {'give' if needs_file else 'takes no'} FILE.tar")
    if (options.action == "prune") != (options.max_bytes is not None):
        raise ValueError("cache prune takes --max-bytes SIZE, and nothing else does")
    if needs_file:
        if options.action == "export":
            count, done = export_cache(cache, options.file, force=options.force), "written to"
        else:
            count, done = import_cache(cache, options.file), "new from"
        text = f"{count} engines {done} {options.file}"
        if options.action == "import":
            text += "; no signature covers them: what each was built from is as the file says"
        return _told(options, {"engines": count}, text)
    if options.action == "prune":
        removed = cache.prune(options.max_bytes)
        freed = sum(entry.size_bytes for entry in removed)
        payload = {"removed": [entry.key for entry in removed], "freed_bytes": freed}
        return _told(options, payload, f"{len(removed)} engines removed, {freed / 1e6:.1f} MB")
    entries = cache.entries()
    if put_json(options, {"root": str(cache.root), "engines": [asdict(e) for e in entries]}):
        return OK
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        print(
            f"{entry.key[:12]}  {entry.target:21} {entry.version:14} "
            f"{entry.size_bytes / 1e6:8.1f} MB  used {used}"
        )
    total = sum(entry.size_bytes for entry in entries)
    print(f"{len(entries)} engines, {total / 1e6:.1f} MB in {cache.root}")
    return OK


def _told(options: argparse.Namespace, payload: dict[str, object], text: str) -> int:
    if not put_json(options, payload):
        print(text)
    return OK
