"""The export side, end to end: a trained model becomes a verified bundle.

Stands above export and engines, which do not know each other: export makes graphs, engines make
artifacts of them, this joins both into one directory that carries its proof.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgevision.bundle.directory import BundleWriter
from edgevision.bundle.files import PathLike
from edgevision.bundle.forms import FP16, INT8, PRECISIONS, form_for, forms_of
from edgevision.bundle.layer_report import LAYER_REPORT
from edgevision.bundle.manifest import Alternative, Manifest, Stage
from edgevision.bundle.targets import TargetProfile
from edgevision.bundle.tensors import Array
from edgevision.engines.artifacts import ArtifactBuilder
from edgevision.engines.cache import EngineCache
from edgevision.engines.extend import named_targets
from edgevision.engines.finish import finish_target
from edgevision.engines.registry import unavailable
from edgevision.engines.request import BuilderKnobs
from edgevision.engines.summary import BuildSummary
from edgevision.export.agreement import settle, widest
from edgevision.export.budget import check_budget, hold_budget, max_loss, search_for
from edgevision.export.layer_report import rows_of
from edgevision.export.pictures import draw_layers, draw_search
from edgevision.export.precision.calibration import METHODS
from edgevision.export.precision.quantizer import RECOVERED, RECOVERY
from edgevision.export.score import score_forms
from edgevision.metrics.metric import score_fields
from edgevision.progress import Progress, silent
from edgevision.tasks.decoders import proof_from
from edgevision.tasks.task import get_task

if TYPE_CHECKING:
    from torch import nn

    from edgevision.bundle.parity import Tolerance
    from edgevision.bundle.tensors import ShapeProfile
    from edgevision.export.adapters.adapter import ModelAdapter
    from edgevision.export.adapters.frame import Camera
    from edgevision.export.recipe import ExportedStage
    from edgevision.metrics.own import OwnMetric

Feeds = dict[str, Array]

_T = TypeVar("_T")

_MAX_GOLDEN = 16
_VERSIONED = ("edgevision", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def build(
    source: str | Path | nn.Module | ModelAdapter,
    out: PathLike,
    *,
    task: str | None = None,
    weights: PathLike | None = None,
    size: tuple[int, int] | None = None,
    classes: Sequence[str | tuple[str, str]] | None = None,
    camera: Camera | None = None,
    cameras: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    precision: str = "fp32",
    calibration: PathLike | None = None,
    evaluate: PathLike | None = None,
    label_map: Mapping[str, int | str] | None = None,
    ignore_index: int | None = None,
    metric: str | OwnMetric | None = None,
    samples: PathLike | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    shapes: Mapping[str, ShapeProfile] | None = None,
    targets: str | Sequence[str] = ("host-cpu",),
    keep_fp32: Sequence[str] = (),
    method: str | None = None,
    recover: Sequence[str] | None = None,
    budget: float | str | None = None,
    search_minutes: float = 60.0,
    choose: bool = False,
    strict: bool = False,
    optimization_level: int | None = None,
    workspace_bytes: int | None = None,
    cache: EngineCache | None = None,
    progress: Progress = silent,
) -> BuildSummary:
    """Turn a trained model into a bundle at `out`, replacing a bundle that is there.

    Args:
        source: a shipped net's name, `package.module:factory`, a path ending in .onnx, a torch
            module, or an adapter.
        out: the bundle's directory.
        task: a task's name; by default what the source says.
        weights: a safetensors file, or a PyTorch checkpoint that holds only tensors.
        size: (H, W) of the net's input.
        classes: names, or (name, "#rrggbb").
        camera: what the camera gives, and how it meets the net; by default RGB of the net's size.
        cameras: how many cameras' frames come in one call, N, or (fewest, most): a list of results
            then comes out. By default one frame, and one result.
        mean: per channel on the 0-1 scale, in RGB; by default ImageNet's, or the shipped net's.
        std: per channel on the 0-1 scale, in RGB; by default ImageNet's, or the shipped net's.
        precision: "fp32", "fp16" or "int8".
        calibration: folder, list, tar or Parquet file of images (`tensors`: folder of .npz files
            keyed by input name); INT8 needs it, but for a generator, which is calibrated on seeds.
        evaluate: folder to score every form on: `images/` with `labels/`, or only images; objects
            need `images/` and COCO's `instances.json`; tensors need `metric` and .npz files that
            hold the inputs by name, and labels.
        label_map: for class maps, the class (index or name) of each number or colour `#rrggbb` in
            label files that have others than the classes; what is not named is void. The bundle
            keeps it; a folder's `labels.json` comes before it.
        ignore_index: the number in label files that is void, beside 255.
        metric: for tensors, what `evaluate` is scored by: a function, or `package.module:function`,
            of a sample's outputs and labels (arrays by name) that returns a number, or several by
            name; the report has their means.
        samples: folder of the inputs that the graphs are proven on; by default those of
            `calibration`, or drawn ones.
        ranges: the least and the most that inputs which are drawn may hold, by name.
        shapes: bounds of an ONNX file's open inputs, by name.
        targets: a target's name, or several, or TOML files; one that cannot be built here is
            recorded as pending. One that is bound to its machine, and is this machine, is finished
            beside it.
        keep_fp32: op types or node names that stay in float32 in an FP16 or INT8 graph. With
            several stages, "STAGE/NAME" is of one stage, "NAME" of each.
        method: how INT8's ranges are found: "auto" (the default, what costs each layer least),
            "percentile", "mse", "entropy" or "minmax".
        recover: what INT8 tries to win accuracy back, and keeps where it lowers the error:
            "equalise" and "correct" (the default), "round" (learnt rounding: minutes), or nothing.
        budget: what INT8 may lose, of the task's figure on labelled frames of `evaluate`, else as
            the share of answers that are not FP32's; "task" for what the task's gates allow. The
            most INT8 inside it is searched for, in place of leaving noisy layers wide.
        search_minutes: after so many the search ends with the best that it has.
        choose: keep the FP16 graph beside the INT8 one, so that each device can measure both and
            keep the faster one: `edgevision finish --choose`.
        strict: refuse an FP16 or INT8 graph that misses a bar of parity. Without it a warning tells
            of one, and where labelled frames are evaluated the task's figure decides; FP32 graphs
            and unrelated answers are always refused, and so is any of a task that has no figure,
            without a `metric` or `budget`.
        optimization_level: how long TensorRT's builder searches, 0 (quick) to 5.
        workspace_bytes: most memory that TensorRT's builder may use for tactics.
        cache: where engines that were built before are looked for and kept; None for nowhere.
        progress: told how far the work is.

    Raises:
        ValueError: an argument makes no sense.
        FileReadError: a file or folder cannot be read.
        ExportError: the model does not become the graph asked for.
        ParityError: a graph or engine disagrees with the FP32 reference: FP32's, an unrelated
            one, one that lost more than the task's figure may, or with `strict` any.
        BuildError: an engine could not be built.
        BundleError: the bundle could not be written; one that was there is untouched.

    Example:
        >>> edgevision.build("unet-camvid", "road.ev", precision="int8",
        ...                  calibration="frames/")  # doctest: +SKIP
    """
    asked = named_targets(targets)
    knobs = BuilderKnobs(optimization_level, workspace_bytes)
    knobs.check_used(asked.values())
    _check_recover(precision, recover)
    _check_precision(precision, keep_fp32, method, choose=choose)
    check_budget(precision, budget, search_minutes)
    from edgevision.export.recipe import export_stage
    from edgevision.export.samples import calibration_samples, golden_samples
    from edgevision.export.source import find_function, resolve

    if metric is not None and not evaluate:
        raise ValueError("metric: what it is to score is missing; give --evaluate DIR (evaluate=)")
    own: OwnMetric | None = (
        find_function("metric", metric, "package.module:function")
        if isinstance(metric, str)
        else metric
    )
    front = {"camera": camera, "cameras": cameras, "mean": mean, "std": std}
    with BundleWriter(out) as writer:
        resolved = resolve(
            source,
            task=task,
            weights=Path(weights) if weights else None,
            size=size,
            classes=classes,
            front={k: v for k, v in front.items() if v is not None},
            shapes=shapes,
        )
        adapter = resolved.adapter
        if label_map or ignore_index is not None:
            _read_labels_by(adapter, label_map, ignore_index)
        folder = samples or calibration or resolved.samples
        golden, origin = golden_samples(
            adapter, folder, None if samples else evaluate, ranges=ranges
        )
        typical = calibration_samples(adapter, calibration) if precision == "int8" else []
        parts, fed = _parts(adapter, golden), _parts(adapter, typical)
        searching = None
        if budget is not None:
            searching = search_for(adapter, budget, search_minutes, evaluate, fed, progress)
        proof = proof_from(get_task(adapter.task), adapter.settings(), len(parts))
        # Where no figure and no budget says what a missed bar costs, the bar is all that there is.
        is_judged = get_task(adapter.task).headline is not None or own or searching
        exported = {
            name: export_stage(
                part,
                precision=precision,
                samples=feeds[:: -(-len(feeds) // _MAX_GOLDEN)],
                calibration=fed[name][1] or None,
                proof=proof,
                method=method or METHODS[0],
                recover=RECOVERED if recover is None else recover,
                keep_fp32=_names_in(name, keep_fp32, parts),
                is_strict=strict or not is_judged,
                choose_wide=searching,
                progress=progress,
            )
            for name, (part, feeds) in parts.items()
        }
        scored = (
            score_forms(adapter, exported, evaluate, metric=own, progress=progress)
            if evaluate
            else None
        )
        said = settle(
            [report for stage in exported.values() for report in stage.parity],
            forms_of(precision),
            scored.scores if scored else (),
            get_task(adapter.task).headline,
            max_loss=max_loss(searching, adapter),
            shipped=precision,
        )
        if searching is not None and scored is not None:
            hold_budget(searching, scored.scores, adapter)
        stages, proofs = [], []
        builder = ArtifactBuilder(asked, writer, Path(out).name, cache, progress, knobs)
        for name, stage in exported.items():
            graph = f"stages/{name}/model.onnx"
            writer.add(graph, stage.graphs[precision])
            writer.add_golden(name, stage.golden_inputs, stage.golden_outputs)
            others: tuple[Alternative, ...] = ()
            if choose:
                other = FP16.name
                path = f"stages/{name}/{other}.onnx"
                writer.add(path, stage.graphs[other])
                others = (Alternative(other, path, stage.tolerances[other]),)
            described, reports = builder.build(
                Stage(
                    name=name,
                    graph=graph,
                    inputs=stage.inputs,
                    outputs=stage.outputs,
                    tolerances=_bars(stage, precision),
                    profiles=stage.profiles,
                    alternatives=others,
                ),
                partial(_graph_for, stage, precision),
                (stage.golden_inputs, stage.golden_outputs),
                proof=proof,
            )
            stages.append(described)
            proofs += reports
        for path, content in adapter.files().items():
            writer.add(path, content)
        parity = (*(r for stage in exported.values() for r in stage.parity), *proofs)
        kept = _by_node({name: stage.kept for name, stage in exported.items()})
        writer.add("reports/parity.json", _json([asdict(report) for report in parity]))
        if precision != "fp32":
            proven = _by_node({name: stage.int8 for name, stage in exported.items()})
            harm = searching.outcome.found.harm if searching and searching.outcome else {}
            sizes = _by_node({name: stage.layers for name, stage in exported.items()})
            rows = rows_of(sizes, proven, kept, harm)
            layers = {"kept_wide": kept, "int8": proven, "layers": [asdict(row) for row in rows]}
            writer.add(LAYER_REPORT, _json(layers))
            if rows:
                writer.add("reports/layers.png", draw_layers(rows))
        if searching is not None and searching.outcome is not None:
            writer.add("reports/search.json", _json(searching.outcome.as_json()))
            writer.add("reports/search.png", draw_search(searching.outcome))
        if scored:
            fields = [score_fields(score) for score in scored.scores]
            writer.add("reports/accuracy.json", _json(fields))
            if scored.picture:
                writer.add("reports/differences.png", scored.picture)
        provenance = {
            **resolved.provenance,
            "golden_samples": origin,
            "kept_wide": "; ".join(f"{node}: {why}" for node, why in kept.items()),
            **{f"missed_bar_{form}": text for form, text in said.items()},
            **_calibration_provenance(exported),
            **_versions(),
        }
        manifest = Manifest(
            name=resolved.name,
            task=adapter.task,
            precision=precision,
            settings=adapter.settings(),
            stages=tuple(stages),
            files=(),
            provenance=provenance,
        )
        bundle = writer.publish(manifest)
    here = [t for t in asked.values() if not t.portable and unavailable(t) is None]
    done = {
        t.name: finish_target(bundle, t, knobs=knobs.of(t), cache=cache, progress=progress)
        for t in here
    }
    scores = tuple(scored.scores) if scored else ()
    return BuildSummary(
        bundle,
        parity,
        scores,
        builder.seconds,
        frozenset(builder.cached),
        done,
        max_loss(searching, adapter),
    )


def _read_labels_by(
    adapter: ModelAdapter, label_map: Mapping[str, int | str] | None, ignore_index: int | None
) -> None:
    from edgevision.export.adapters.adapter import LabelledAdapter

    if not isinstance(adapter, LabelledAdapter):
        raise ValueError(  # noqa: TRY004 - of the task that was asked for
            f"label_map, ignore_index: of label files of class maps, which task '{adapter.task}' "
            "has none of. Leave them out"
        )
    adapter.read_labels_by(label_map, ignore_index)


def _parts(
    adapter: ModelAdapter, samples: Sequence[Feeds]
) -> dict[str, tuple[ModelAdapter, Sequence[Mapping[str, Array]]]]:
    """Return the graphs that a model is of, and what each is fed on `samples`."""
    from edgevision.export.adapters.adapter import StagedAdapter

    if not isinstance(adapter, StagedAdapter):
        return {"main": (adapter, samples)}
    feeds = adapter.stage_feeds(samples)
    return {name: (part, feeds[name]) for name, part in adapter.stages.items()}


def _graph_for(stage: ExportedStage, precision: str, target: TargetProfile) -> bytes:
    return stage.graphs[form_for(precision, on_gpu=target.flavour.on_gpu).name]


def _bars(stage: ExportedStage, precision: str) -> Mapping[str, Tolerance]:
    """Return what engines of a precision are held against, on GPUs and CPUs."""
    forms = [form for form in forms_of(precision) if form.precision == precision]
    return widest([stage.tolerances[form.name] for form in forms])


def _check_precision(
    precision: str, keep_fp32: Sequence[str], method: str | None, *, choose: bool
) -> None:
    """Refuse a precision that there is not, and knobs that it does not have."""
    forms_of(precision)
    if isinstance(keep_fp32, str):
        raise TypeError(f"keep_fp32: got '{keep_fp32}', expected a list such as ['{keep_fp32}']")
    if keep_fp32 and precision == PRECISIONS[0]:
        raise ValueError("keep_fp32: in an FP32 graph everything is float32. Leave it out")
    if method is not None and method not in METHODS:
        raise ValueError(f"method: got '{method}', expected one of {', '.join(METHODS)}")
    if method is not None and not any(form.is_quantized for form in forms_of(precision)):
        raise ValueError(f"method: how INT8 is calibrated, and precision is {precision}")
    if choose and precision != INT8.precision:
        raise ValueError(
            f"choose: a device chooses between INT8 and FP16, and precision is {precision}"
        )


def _check_recover(precision: str, recover: Sequence[str] | None) -> None:
    """Refuse ways to win accuracy back that there are not, or nothing to win back."""
    if isinstance(recover, str):
        raise TypeError(f"recover: got '{recover}', expected a list such as ['{recover}']")
    if unknown := sorted(set(recover or ()) - set(RECOVERY)):
        raise ValueError(f"recover: got '{unknown[0]}', expected some of {', '.join(RECOVERY)}")
    if recover is not None and not any(form.is_quantized for form in forms_of(precision)):
        raise ValueError(f"recover: what INT8 lost, and precision is {precision}")


def _names_in(stage: str, names: Sequence[str], stages: Collection[str]) -> list[str]:
    """Return which of `names` are of a stage: NAME is of each, STAGE/NAME of one."""
    found = []
    for name in names:
        first, _, rest = name.partition("/")
        is_of_one = len(stages) > 1 and bool(rest) and first in stages
        if not is_of_one or first == stage:
            found.append(rest if is_of_one else name)
    return found


def _by_node(found: Mapping[str, Mapping[str, _T]]) -> dict[str, _T]:
    """Return what was found in each stage by node; two stages may call nodes the same."""
    if len(found) == 1:
        return dict(*found.values())
    return {f"{stage}/{node}": why for stage, of in found.items() for node, why in of.items()}


def _calibration_provenance(exported: Mapping[str, ExportedStage]) -> dict[str, str]:
    """Return what each stage's scales came from; with several, `STAGE/` stands before the keys."""
    found = {}
    for name, stage in exported.items():
        before = f"{name}/" if len(exported) > 1 else ""
        if stage.calibration is not None:
            found[f"{before}calibration_count"] = str(stage.calibration.count)
            found[f"{before}calibration_method"] = stage.calibration.method
            found[f"{before}calibration_sha256"] = stage.calibration.sha256
            found[f"{before}calibration_recovery"] = "; ".join(stage.calibration.recovery)
        elif stage.int8:
            found[f"{before}calibration_method"] = "none, the model brings its scales"
    return found


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _VERSIONED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _json(value: object) -> bytes:
    def plain(item: object) -> object:
        # NaN is not JSON: a class that does not occur has no IoU.
        if isinstance(item, float) and item != item:
            return None
        if isinstance(item, dict):
            return {key: plain(one) for key, one in item.items()}
        if isinstance(item, list | tuple):
            return [plain(one) for one in item]
        return item

    return (json.dumps(plain(value), indent=1) + "\n").encode()
