"""Every module has a test file of its own name, or a reason here that says where it is tested."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Modules, and what runs them in place of a file of their name: one suite for several of them.
ELSEWHERE = {
    "batch/*": "batch/test_runs batch/test_answers batch/test_ray",
    "bench/cold": "bench/test_sides",
    "bench/facts": "bench/test_report",
    "bench/gate/*": "bench/test_verdict bench/test_sides cli/test_bench",
    "bench/loadgen_child": "bench/test_loadgen",
    "bench/measure": "bench/test_scenarios cli/test_bench",
    "bench/pairs": "bench/test_statistics",
    "bundle/capabilities": "unit/test_targets",
    "bundle/directory": "unit/test_bundle unit/test_bundle_attacks unit/test_bundle_mutations",
    "bundle/forms": "export/test_precision",
    "bundle/golden": "unit/test_bundle unit/test_bundle_attacks",
    "bundle/printable": "unit/test_text",
    "bundle/record": "engines/test_finish",
    "bundle/staging": "unit/test_bundle_crashes",
    "bundle/state": "engines/test_finish runtime/test_signature",
    "bundle/toml_file": "cli/test_build_file unit/test_targets",
    "bundle/user_cache": "runtime/test_rtx_cache",
    "cli/*": "cli/test_verbs cli/test_help",
    "engines/artifacts": "engines/test_builders",
    "engines/builder": "engines/test_builders",
    "engines/cache_archive": "engines/test_cache",
    "engines/extend": "cli/test_finish engines/test_finish",
    "engines/held_folder": "engines/test_finish",
    "engines/layer_precision": "engines/test_finish",
    "engines/ort": "engines/test_builders",
    "engines/portable": "export/test_openvino engines/test_builders",
    "engines/profiles": "engines/test_builders",
    "engines/registry": "engines/test_unavailable",
    "engines/request": "engines/test_builders",
    "engines/summary": "cli/test_verbs",
    "engines/t*rt*": "engines/test_trt_settings contract/test_tensorrt_api engines/test_builders",
    "engines/tensorrt_network": "engines/test_trt_settings contract/test_tensorrt_api",
    "export/adapters/adapter": "export/test_export_stage",
    "export/adapters/detections": "export/test_mask_rcnn",
    "export/adapters/flat": "export/test_modules_as_they_are",
    "export/adapters/fit": "export/test_camera_builds",
    "export/adapters/frame_adapter": "export/test_camera_builds export/test_semantic",
    "export/adapters/module_adapter": "export/test_how_to_add export/test_image_generator",
    "export/adapters/one_stage": "export/test_torchvision_detectors",
    "export/adapters/output": "export/test_semantic export/test_depth",
    "export/adapters/regions": "export/test_mask_rcnn",
    "export/adapters/registry": "export/test_how_to_add",
    "export/adapters/search": "export/test_captioner",
    "export/as_read": "export/test_reading",
    "export/graph/capture": "export/test_foreign_module export/test_semantic",
    "export/graph/loops": "export/test_captioner",
    "export/graph/observe": "export/test_quantize",
    "export/graph/onnx_file": "export/test_onnx_files",
    "export/graph/*rules": "export/test_quantize engines/test_preflight",
    "export/figures": "export/test_budget",
    "export/layer_report": "export/test_budget",
    "bundle/layer_report": "export/test_layer_compare",
    "export/peers": "export/test_foreign_module",
    "export/pictures": "export/test_budget",
    "export/precision/*": "export/test_precision export/test_quantize export/test_budget",
    "export/samples": "export/test_onnx_files",
    "export/score": "export/test_shipped_detector",
    "machine/environment": "bench/test_report",
    "machine/identity": "unit/test_machine",
    "metrics/differences": "export/test_shipped_detector",
    "metrics/images": "unit/test_image_metrics",
    "metrics/latency": "batch/test_runs",
    "metrics/labels": "unit/test_label_values",
    "metrics/own": "unit/test_own_metric",
    "models/*": "export/test_segmenters export/test_generators export/test_captioner",
    "progress": "cli/test_verbs",
    "runtime/backends/*": "runtime/test_session runtime/test_tensorrt_backend standin/test_rtx",
    "runtime/device/*": "device/test_contract standin/test_stand_in",
    "runtime/files/*": "runtime/test_outputs runtime/test_generated",
    "runtime/lifetime": "pipeline/test_edges runtime/test_session",
    "runtime/model": "runtime/test_load runtime/test_misuse",
    "runtime/slots/*": "runtime/test_session device/test_runtime device/test_streaming",
    "runtime/stream/*": "pipeline/test_schedules pipeline/test_planted pipeline/test_edges",
    "runtime/verify": "runtime/test_load",
    "tasks/labelled": "runtime/test_frames",
    "tasks/box_pictures": "runtime/test_instance",
    "tasks/camera*": "runtime/test_camera_frames",
    "tasks/decoders": "runtime/test_load pipeline/test_carried",
    "tasks/interop": "runtime/test_camera_frames",
    "tasks/objects": "runtime/test_instance export/test_detection",
    "tasks/pixel_photos": "runtime/test_camera_files",
    "tasks/proof": "unit/test_parity export/test_export_stage",
    "tasks/task": "architecture/test_task_names export/test_how_to_add",
    "tasks/timings": "runtime/test_semantic",
    "testing/*": "device/test_contract pipeline/test_planted pipeline/test_schedules",
}


def homeless(modules: list[str], tests: set[str]) -> list[str]:
    """Return the modules without a test file of their name or a row."""
    names = {test.rpartition("/test_")[2] for test in tests}
    return [
        module
        for module in modules
        if module.rpartition("/")[2].lstrip("_") not in names
        and not any(fnmatch(module, row) for row in ELSEWHERE)
    ]


def _modules() -> list[str]:
    package = ROOT / "edgevision"
    paths = sorted(package.rglob("*.py"))
    found = [str(path.relative_to(package).with_suffix("")) for path in paths]
    return [name for name in found if not name.endswith("__")]


def _tests() -> set[str]:
    folder = ROOT / "tests"
    return {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("test_*.py")}


def test_every_module_is_tested_somewhere() -> None:
    assert homeless(_modules(), _tests()) == []


def test_every_row_is_of_use_and_its_tests_exist() -> None:
    modules, tests = _modules(), _tests()
    names = {test.rpartition("/test_")[2] for test in tests}
    for row, suites in ELSEWHERE.items():
        assert set(suites.split()) <= tests, row
        assert [
            module
            for module in modules
            if fnmatch(module, row) and module.rpartition("/")[2].lstrip("_") not in names
        ], f"'{row}' stands for no module"


def test_a_module_without_a_test_is_found() -> None:
    assert homeless(["tasks/wheel", "tasks/depth"], {"runtime/test_depth"}) == ["tasks/wheel"]
