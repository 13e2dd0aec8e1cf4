"""Files, folders and links exchanged while a signed bundle is used: what answers was signed.

EDGEVISION_TEST_RACE_S=60 exchanges as long as the project promises; CI does so until both a signed
bundle and an exchanged one were met.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevision
from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.signature import keygen, sign
from edgevision.cli import main
from edgevision.errors import EdgeVisionError
from tests.parts.tiny_bundles import semantic_bundle

pytest.importorskip("cryptography")

RACE_S = float(os.environ.get("EDGEVISION_TEST_RACE_S", "0"))
FRAME = np.random.default_rng(5).integers(0, 256, (6, 10, 3), np.uint8)
GRAPHS = ("stages/main/model.onnx", "stages/main/host-cpu.onnx")
EXCHANGE = """
import os, random, sys, time
from pathlib import Path

root, good, evil = map(Path, sys.argv[1:4])
names, rng = sys.argv[4:], random.Random(1)
aside = root.with_name("aside")

def put(source, name, is_link):
    kept = source.with_name(source.name + ".kept") / name
    aside.symlink_to(kept) if is_link else aside.write_bytes(kept.read_bytes())
    os.replace(aside, good / name)

def lead(target):
    aside.symlink_to(target)
    os.replace(aside, root)

while True:
    if rng.random() < 0.3:
        lead(evil)
        time.sleep(rng.random() / 100)
        lead(good)
    else:
        changed = rng.sample(names, rng.randrange(1, len(names) + 1))
        for name in changed:
            put(evil, name, rng.random() < 0.5)
        time.sleep(rng.random() / 100)
        for name in changed:
            put(good, name, False)
    time.sleep(rng.random() / 20)
"""


def evil_twin(good: Bundle, path: Path) -> Bundle:
    """A valid bundle of the same name and tensors whose graph gives the least likely class."""
    with BundleWriter(path) as writer:
        for entry in good.manifest.files:
            if entry.path != "golden.npz":
                content = good.read(entry.path)
                writer.add(entry.path, content.replace(b"ArgMax", b"ArgMin"))
        inputs, _ = good.golden("main")
        least = inputs["frame"].argmin(-1).astype(np.uint8)
        writer.add_golden("main", inputs, {"classes": least})
        return writer.publish(good.manifest)


def test_only_what_was_signed_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEVISION_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("EDGEVISION_CACHE", str(tmp_path / "cache"))
    good = semantic_bundle(tmp_path / "good.ev")
    evil = evil_twin(good, tmp_path / "evil.ev")
    private, public = keygen(tmp_path / "ours")
    sign(good.root, private, version=1)
    theirs, _ = keygen(tmp_path / "theirs")
    sign(evil.root, theirs, version=9)
    for made in (good, evil):
        subprocess.run(["cp", "-r", made.root, f"{made.root}.kept"], check=True)
    wanted, wrong = FRAME.argmax(-1), FRAME.argmin(-1)
    assert (wanted != wrong).any()
    road = tmp_path / "road.ev"
    road.symlink_to(good.root)
    Image.fromarray(FRAME).save(tmp_path / "frame.png")
    seen: Counter[str] = Counter()

    def load() -> None:
        with edgevision.load(road, require_signature=public) as model:
            np.testing.assert_array_equal(model(FRAME).mask, wanted)

    def finish() -> None:
        edgevision.finish(road, "local-cpu", require_signature=public, cache=None)

    def run() -> None:
        out = tmp_path / "out"
        words = ["run", str(road), str(tmp_path / "frame.png"), "--out", str(out), "--force"]
        if main([*words, "--key", str(public)]):
            raise EdgeVisionError(capsys.readouterr().err)
        with Image.open(out / "frame.classes.png") as classes:
            np.testing.assert_array_equal(np.asarray(classes), wanted)

    command = [sys.executable, "-c", EXCHANGE, road, good.root, evil.root]
    with subprocess.Popen([*command, *GRAPHS, "manifest.json", "signature.json"]) as exchanging:
        try:
            end = time.monotonic() + RACE_S
            while time.monotonic() < end or not {"load done", "load refused"} <= set(seen):
                for use in (load, load, load, finish, run):
                    try:
                        use()
                        seen[f"{use.__name__} done"] += 1
                    except EdgeVisionError:
                        seen[f"{use.__name__} refused"] += 1
        finally:
            exchanging.kill()
    print(dict(seen))
