"""What a stranger may hand over: for each kind of file sound ones, and what reads them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import tokenizers
from onnx import helper, numpy_helper
from PIL import Image

from edgevision.bundle import golden
from edgevision.bundle.directory import Bundle
from edgevision.bundle.flavours import ORT
from edgevision.bundle.onnx_bytes import external_weights
from edgevision.bundle.record import EngineFile, Record, finished
from edgevision.bundle.signature import check_signature, keygen, sign
from edgevision.bundle.targets import target_from_file
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.cli.build_file import read_build_file
from edgevision.engines.cache import EngineCache
from edgevision.engines.cache_archive import export_cache, import_cache
from edgevision.engines.extend import finish
from edgevision.export.source import read_classes
from edgevision.metrics.coco import read_captions, read_objects
from edgevision.tasks.frames import iterate_frames, read_counts, read_image, read_labels
from edgevision.tasks.tensors import TASK as TENSORS
from edgevision.tasks.vocabulary import read_vocabulary
from tests.fuzz import graphs as nets
from tests.parts.tiny_bundles import semantic_bundle

SPEC = TensorSpec("x", DType.FLOAT32, (1, 4))


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: writes sound ones into a folder, and gives the path of each.
        read: reads one that was changed in its place.
        refused: what may be raised beside errors of edgevision's own.
        change: how a file is changed, given another's bytes, too; by default as the runner does.
    """

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    refused: tuple[type[Exception], ...] = ()
    change: Callable[[bytes, bytes, random.Random], bytes] | None = None


def _written(folder: Path, **contents: bytes | str) -> list[Path]:
    paths = []
    for name, content in contents.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        paths.append(path)
    return paths


def _bundle(*names: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        root = semantic_bundle(folder / "road.ev").root
        sign(root, keygen(folder / "ours")[0], version=3, expires="2999-01-01")
        return [root / name for name in names]

    return make


def _open(path: Path) -> None:
    root = next(parent for parent in path.parents if parent.suffix == ".ev")
    opened = Bundle.open(root)
    check_signature(opened, root.with_name("ours.pub"))
    for stage in opened.manifest.stages:
        opened.golden(stage.name)


def _graph(folder: Path) -> list[Path]:
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    value = helper.make_tensor_value_info("x", 1, [1, 4])
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "inner", [], [value])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("If", ["y"], ["z"], then_branch=inner, else_branch=inner),
    ]
    made = helper.make_graph(nodes, "g", [value], [value], [weights])
    return _written(folder, graph__onnx=helper.make_model(made).SerializeToString())


def _record(folder: Path) -> list[Path]:
    opened = semantic_bundle(folder / "road.ev")
    file = EngineFile("main", "main.onnx", "0" * 64, 3, 1.5, {"fp16": 2})
    record = Record(
        "local-cpu", ORT, "1.32.0", "here", "2026-11-28 12:00", opened.manifest_sha256,
        passed=True, reason="", version_compatible=False, parity=("main: agrees",),
        score={"mIoU": 0.5}, stages=(file,), proof="0" * 64,
    )  # fmt: skip
    (folder / "engines" / "local-cpu").mkdir(parents=True)
    return _written(folder / "engines" / "local-cpu", record__json=record.to_json())


def _examine(path: Path) -> None:
    opened = Bundle.open(path.parents[2] / "road.ev", check_hashes=False)
    (found,) = finished(opened, path.parents[1], lambda _: "here")
    if found.record is not None:
        replace(found.record, reason="").to_json()


def _cache(folder: Path) -> EngineCache:
    return EngineCache(folder / "cache")


def _entry(folder: Path) -> list[Path]:
    bundle, cache = semantic_bundle(folder / "road.ev"), _cache(folder)
    finish(bundle.root, "local-cpu", cache=cache, engines=folder / "engines")
    return [path for path in (folder / "cache" / "engines").glob("*/*") if path.is_file()]


def _take(path: Path) -> None:
    cache = _cache(path.parents[3])
    cache.entries()
    cache.take(path.parent.name, path.parents[3] / "taken")


def _archive(folder: Path) -> list[Path]:
    _entry(folder)
    export_cache(_cache(folder), folder / "cache.tar", force=True)
    return [folder / "cache.tar"]


def _import(path: Path) -> int:
    return import_cache(EngineCache(path.parent / "other"), path)


def _keys(folder: Path) -> list[Path]:
    semantic_bundle(folder / "road.ev")
    return list(keygen(folder / "ours"))


def _use_key(path: Path) -> None:
    root = path.with_name("road.ev")
    if path.suffix == ".key":
        path.chmod(0o600)
        sign(root, path, version=1)
    else:
        check_signature(Bundle.open(root, check_hashes=False), path)


def _toml(folder: Path) -> list[Path]:
    board = 'name = "our-board"\ntitle = "ours"\nflavour = "trt"\nversions = ["10.3", "10.7"]\n'
    build = 'source = "unet-camvid"\nout = "a.ev"\nprecision = "int8"\nsize = [32, 48]\n'
    return _written(
        folder, board__toml=board + 'sm = ["8.7"]\n', build__toml=build + 'targets = ["rtx"]\n'
    )


def _read_toml(path: Path) -> object:
    return target_from_file(path) if path.name == "board.toml" else read_build_file(path)


def _vocabulary(folder: Path) -> list[Path]:
    words = {"<s>": 0, "</s>": 1, "a": 2, "dog": 3, "[UNK]": 4}
    pieces = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]")).to_str()
    text = json.dumps(["<s>", "</s>", "a", "dog", "."])
    return _written(
        folder, words__json=text, tokenizer__json=pieces, classes__txt="road #804080\ncar\n"
    )


def _read_vocabulary(path: Path) -> None:
    if path.name == "classes.txt":
        read_classes(path)
        return
    kind = "words" if path.name == "words.json" else "huggingface"
    found = read_vocabulary(kind, path.read_bytes())
    ids = list(range(min(found.size, 5)))
    found.text(ids), found.words(ids), found.number("a")


def _coco(folder: Path) -> list[Path]:
    Image.new("RGB", (8, 6)).save(folder / "a.png")
    region = [[1, 1, 6, 1, 6, 5]]
    runs = {"size": [6, 8], "counts": [3, 5, 40]}
    packed = {"size": [6, 8], "counts": "35X1"}
    outlines = [
        {"id": i, "image_id": 7, "category_id": 1, "bbox": [1, 1, 5, 4], "iscrowd": i % 2,
         "segmentation": outline, "area": 20}
        for i, outline in enumerate((region, runs, packed))
    ]  # fmt: skip
    image = {"id": 7, "file_name": "a.png", "width": 8, "height": 6}
    categories = [{"id": 1, "name": "car"}]
    objects = {"images": [image], "annotations": outlines, "categories": categories}
    captions = {"images": [image], "annotations": [{"id": 1, "image_id": 7, "caption": "a dog"}]}
    return _written(
        folder, instances__json=json.dumps(objects), captions__json=json.dumps(captions)
    )


def _read_coco(path: Path) -> None:
    if path.name == "captions.json":
        read_captions(path.parent)
        return
    found = read_objects(path.parent, ["car"])
    for index in range(len(found.images)):
        found.objects(index, (6, 8))


def _arrays(folder: Path) -> list[Path]:
    (folder / "golden").mkdir()
    (folder / "feeds").mkdir()
    values = np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    (folder / "golden" / "g.npz").write_bytes(golden.encode({"main/x": values}))
    np.savez(folder / "feeds" / "a.npz", x=values[0])
    np.savez_compressed(folder / "feeds" / "b.npz", x=values[0])
    return [folder / "golden" / "g.npz", folder / "feeds" / "a.npz", folder / "feeds" / "b.npz"]


def _read_arrays(path: Path) -> None:
    if path.name == "g.npz":
        golden.decode(path.read_bytes(), {"main/x": SPEC}, "main/")
    else:
        list(TENSORS.samples((SPEC,), {}, path.parent, 4))


def _pictures(folder: Path) -> list[Path]:
    rng = np.random.default_rng(3)
    frame = Image.fromarray(rng.integers(0, 256, (18, 22, 3), np.uint8))
    label = Image.fromarray(rng.integers(0, 3, (18, 22), np.uint8))
    wide = Image.fromarray(rng.integers(0, 60000, (18, 22), np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    for suffix in ("jpg", "png", "bmp", "webp", "tif", "ppm"):
        frame.save(folder / f"frame.{suffix}", **({"exif": turned} if suffix == "jpg" else {}))
    label.save(folder / "label.png")
    wide.save(folder / "wide.png")
    return sorted(folder.iterdir())


def _read_picture(path: Path) -> object:
    reader = {"label": read_labels, "wide": read_counts}.get(path.stem, read_image)
    return reader(path)


def _videos(folder: Path) -> list[Path]:
    for suffix in ("mp4", "mkv", "avi", "webm", "ts", "mjpeg"):
        with av.open(str(folder / f"drive.{suffix}"), "w") as container:
            codec = {"webm": "vp8", "mjpeg": "mjpeg", "avi": "mjpeg"}.get(suffix, "mpeg4")
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height = 32, 16
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for value in (0, 90, 200):
                pixels = np.full((16, 32, 3), value, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    return sorted(folder.iterdir())


def _frames(path: Path) -> Iterator[object]:
    yield from iterate_frames(path)


KINDS: dict[str, Kind] = {
    "manifest": Kind(_bundle("manifest.json"), _open),
    "files": Kind(_bundle("golden.npz", "stages/main/model.onnx"), _open),
    "signature": Kind(_bundle("signature.json"), _open),
    "graphs": Kind(_graph, lambda path: external_weights(path.read_bytes()), (ValueError,)),
    "nets": Kind(nets.make, nets.read, (ValueError,), nets.change),
    "records": Kind(_record, _examine),
    "cache entries": Kind(_entry, _take),
    "archives": Kind(_archive, _import),
    "keys": Kind(_keys, _use_key),
    "toml": Kind(_toml, _read_toml),
    "vocabularies": Kind(_vocabulary, _read_vocabulary),
    "coco": Kind(_coco, _read_coco),
    "npz": Kind(_arrays, _read_arrays),
    "pictures": Kind(_pictures, _read_picture),
    "videos": Kind(_videos, lambda path: list(_frames(path))),
}
"""By name."""
