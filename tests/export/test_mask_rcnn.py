"""Mask R-CNN: torchvision's detections from a static graph, and what it refuses."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from edgevision.bundle.targets import get_target
from edgevision.engines.registry import unavailable
from edgevision.errors import ExportError
from edgevision.export.adapters.detections import grid_anchors, names
from edgevision.export.adapters.instance import InstanceSegmentation
from edgevision.export.adapters.regions import RegionSampler
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.observe import typed
from edgevision.export.precision.fp16 import to_fp16
from edgevision.export.precision.int8 import to_int8
from edgevision.models.fpn import PyramidBackbone
from edgevision.models.mask_rcnn import DetectionSettings, MaskRCNN, maskrcnn_resnet50
from edgevision.tasks.camera import CameraFrame, ClassLabel
from edgevision.tasks.instance import InstanceDecoder
from edgevision.tasks.pixel_formats import packed
from edgevision.tasks.timings import Timings

CLASSES = [f"c{i}" for i in range(4)]
SIZE = (96, 128)
FORBIDDEN = {"NonMaxSuppression", "RoiAlign", "MaxRoiPool", "NonZero", "Loop", "If", "Scan"}


class SmallBody(nn.Module):
    """Four maps of stride 4 to 32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.stages = nn.ModuleList(
            nn.Conv2d(width, width, 3, 1 if i == 0 else 2, 1) for i in range(4)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x).relu()
        maps = []
        for stage in self.stages:
            x = stage(x).relu()
            maps.append(x)
        return maps


def small(**changes: Any) -> MaskRCNN:
    """Return a net whose scores spread and whose boxes stay near their anchors."""
    torch.manual_seed(3)
    settings = DetectionSettings(
        anchor_sizes=((16,), (24,), (32,), (64,), (96,)), proposals=(60, 40), detections=12,
        **changes,
    )  # fmt: skip
    backbone = PyramidBackbone(SmallBody(16), (16,) * 4, channels=16)
    net = MaskRCNN(backbone, len(CLASSES) + 1, settings=settings, width=32, mask_width=16).eval()
    with torch.no_grad():
        net.rpn.head.cls_logits.weight.normal_(0, 1.0)
        net.roi_heads.box_predictor.cls_score.weight.normal_(0, 3.0)
    return net


def pictures(count: int, size: tuple[int, int]) -> np.ndarray:
    """Return smooth pictures, uint8[count, H, W, 3]."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    fine = interpolate(coarse, size=size, mode="bicubic").clamp(0, 1).mul(255).byte()
    return fine.permute(0, 2, 3, 1).contiguous().numpy()


CAMERA = (60, 90)


@pytest.fixture(scope="module")
def adapter() -> InstanceSegmentation:
    """Two cameras of a size and order of their own; test_shipped_detector has one of the net's."""
    return InstanceSegmentation(
        small(), size=SIZE, classes=CLASSES, cameras=2, input_size=CAMERA, channel_order="bgr"
    )


@pytest.fixture(scope="module")
def graph(adapter: InstanceSegmentation) -> onnx.ModelProto:
    return adapter.to_onnx()


def test_the_graph_says_what_the_module_says(
    adapter: InstanceSegmentation, graph: onnx.ModelProto
) -> None:
    frame = pictures(2, CAMERA)
    expected = adapter.reference({"frame": frame})
    assert not FORBIDDEN & {node.op_type for node in graph.graph.node}
    session = ort.InferenceSession(serialized(graph), providers=["CPUExecutionProvider"])
    found = dict(zip(names(), session.run(list(names()), {"frame": frame}), strict=True))
    assert (expected["count"] > 3).all()
    assert expected["converged"].all()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=2e-3, err_msg=name)
    height, width = CAMERA
    boxes = expected["boxes"]
    assert boxes.min() >= 0
    assert boxes[..., [0, 2]].max() <= width
    assert boxes[..., [1, 3]].max() <= height
    real = expected["scores"] > 0
    np.testing.assert_array_equal(real.sum(1), expected["count"])
    assert not expected["labels"][~real].any()
    assert not boxes[~real].any()
    assert (np.diff(expected["scores"], axis=1) <= 0).all()


def test_masks_of_the_frame_are_those_that_the_result_pastes() -> None:
    frame = pictures(1, (60, 90))
    plain, whole = (
        InstanceSegmentation(
            small(), size=SIZE, classes=CLASSES, input_size=(60, 90), masks=masks
        ).reference({"frame": frame})
        for masks in ("cells", "frame")
    )
    assert whole["masks"].shape == (1, 12, 60, 90)
    assert whole["masks"].dtype == np.uint8
    task = InstanceDecoder(
        tuple(ClassLabel(c, "#102030") for c in CLASSES),
        CameraFrame("frame", packed("rgb", (60, 90))),
    )
    cells, pixels = (task.decode(found, Timings(0, 0, 0)) for found in (plain, whole))
    assert len(pixels) > 3
    assert pixels.pasted().any()
    assert (cells.pasted() != pixels.pasted()).mean() < 1e-4
    assert not whole["masks"][0, len(pixels) :].any()


def test_anchors_stand_where_the_cells_of_an_uneven_map_are() -> None:
    anchors = grid_anchors((2, 3), (128, 160), (64,), (1.0,)).reshape(2, 3, 4)
    np.testing.assert_array_equal((anchors[..., :2] + anchors[..., 2:]) / 2 % 1, 0)
    np.testing.assert_array_equal(anchors[0, :, 0], [-32, 21, 74])
    np.testing.assert_array_equal(anchors[:, 0, 1], [-32, 32])


def test_boxes_and_regions_stay_float32(
    adapter: InstanceSegmentation, graph: onnx.ModelProto
) -> None:
    kept = set(adapter.kept_fp32(graph))
    samples = [{"frame": pictures(2, CAMERA)}]
    half = to_fp16(graph, samples=samples, keep_fp32=kept).model
    wide = ("GridSample", "TopK", "Softmax", "Exp", "MatMul", "Div")
    narrow = {"Conv", "ConvTranspose", "Gemm"}
    values = {v.name: v.type.tensor_type.elem_type for v in typed(half).graph.value_info}
    seen = set()
    for node in half.graph.node:
        kind = values.get(node.output[0])
        if node.op_type in wide:
            assert kind == onnx.TensorProto.FLOAT, node.name
        if node.op_type in narrow:
            assert kind == onnx.TensorProto.FLOAT16, node.name
        seen.add(node.op_type)
    assert {*wide, *narrow} <= seen
    with pytest.warns(UserWarning, match="calibrated on 1 frames"):
        quantized = to_int8(graph, samples, keep_float=kept)
    types = {node.name: node.op_type for node in graph.graph.node}
    assert {types[name] for name in quantized.int8} == narrow


def test_a_batch_is_its_frames() -> None:
    frames = pictures(3, SIZE)
    together = InstanceSegmentation(small(), size=SIZE, classes=CLASSES, cameras=3)
    alone = InstanceSegmentation(small(), size=SIZE, classes=CLASSES)
    all_found = together.reference({"frame": frames})
    for index in range(3):
        found = alone.reference({"frame": frames[index : index + 1]})
        for name, values in found.items():
            np.testing.assert_allclose(all_found[name][index], values[0], atol=1e-3, err_msg=name)


def test_an_empty_scene_has_no_detections() -> None:
    net = InstanceSegmentation(small(score=0.999999), size=SIZE, classes=CLASSES)
    found = net.reference({"frame": np.zeros((1, *SIZE, 3), np.uint8)})
    assert found["count"] == 0
    assert found["converged"] == 1
    for name in ("boxes", "labels", "scores", "masks"):
        assert not found[name].any(), name


def test_it_builds_for_rtx(graph: onnx.ModelProto) -> None:
    target = get_target("rtx")
    if reason := unavailable(target):
        pytest.skip(reason)
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(serialized(graph)), parser.get_error(0)
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    assert plan is not None
    assert plan.nbytes > 10_000


def aligned(maps: list[np.ndarray], box: np.ndarray, bins: int) -> np.ndarray:
    """Return one region by the definition: RoIAlign, `aligned=False`, two samples a bin and side.

    As in torchvision's compiled operator: a sample beyond the map is zero.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    side = np.sqrt(width * height)
    level = int(np.clip(np.floor(4 + np.log2(max(side, 1e-12) / 224) + 1e-6), 2, 5)) - 2
    picture = maps[level]
    _, rows, columns = picture.shape
    x1, y1, x2, y2 = box / 2 ** (level + 2)
    step_x, step_y = max(x2 - x1, 1) / bins, max(y2 - y1, 1) / bins
    found = np.zeros((picture.shape[0], bins, bins))
    for i in range(bins):
        for j in range(bins):
            for a in (0.25, 0.75):
                for b in (0.25, 0.75):
                    y, x = y1 + (i + a) * step_y, x1 + (j + b) * step_x
                    if y > rows or x > columns:
                        continue
                    y, x = min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)
                    y0, x0 = int(y), int(x)
                    y9, x9 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
                    v, u = y - y0, x - x0
                    found[:, i, j] += (
                        picture[:, y0, x0] * (1 - v) * (1 - u) + picture[:, y0, x9] * (1 - v) * u
                        + picture[:, y9, x0] * v * (1 - u) + picture[:, y9, x9] * v * u
                    )  # fmt: skip
    return found / 4


@pytest.mark.parametrize("bins", [7, 14])
def test_regions_are_cut_by_the_definition(bins: int) -> None:
    random = np.random.default_rng(0)
    size = (256, 320)
    strides = (4, 8, 16, 32)
    shapes = [(size[0] // s, size[1] // s) for s in strides]
    maps = [random.standard_normal((5, *shape)).astype(np.float32) for shape in shapes]
    corner = random.uniform(0, 1, (24, 2)) * size[::-1]
    extent = random.choice([2, 20, 100, 300], (24, 1)) * random.uniform(0.5, 1.5, (24, 2))
    boxes = np.concatenate([corner, corner + extent], 1)
    boxes = np.clip(boxes, 0, [320, 256, 320, 256]).astype(np.float32)
    boxes[0] = [318.5, 254.5, 320, 256]  # at the far corner, smaller than a cell
    boxes[1] = 0  # padding
    sampler = RegionSampler(shapes, strides)
    atlas = sampler.atlas([torch.from_numpy(x)[None] for x in maps])
    found = sampler(atlas, torch.from_numpy(boxes)[None], bins)[0].numpy()
    for index, box in enumerate(boxes):
        np.testing.assert_allclose(found[index], aligned(maps, box, bins), atol=2e-4)


REFUSED = [
    ({"size": (100, 128)}, ValueError, r"divisible by 32; take \(128, 128\)"),
    (
        {"classes": CLASSES[:2]},
        ExportError,
        "tells 4 classes and the background apart, 2 are named",
    ),
    ({"cameras": 0}, ValueError, "cameras: got 0"),
    ({"channel_order": "bgra"}, ValueError, "expected rgb or bgr"),
    ({"masks": "boxes"}, ValueError, "masks: got 'boxes', expected cells or frame"),
]


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        InstanceSegmentation(small(), **{"size": SIZE, "classes": CLASSES, **changes})


def test_too_many_places_are_refused() -> None:
    net = small()
    net.settings = DetectionSettings(proposals=(4000, 1000))
    with pytest.raises(ExportError, match="4000 boxes at a step, TensorRT's TopK takes 3840"):
        InstanceSegmentation(net, size=SIZE, classes=CLASSES)


def test_other_modules_are_refused() -> None:
    with pytest.raises(ExportError, match="Linear is no Mask R-CNN that can be exported"):
        InstanceSegmentation(nn.Linear(2, 2), size=SIZE, classes=CLASSES)
    net = small()
    del net.roi_heads.mask_predictor
    with pytest.raises(ExportError, match="no mask head"):
        InstanceSegmentation(net, size=SIZE, classes=CLASSES)


def built_as_torchvision_does(**changes: Any) -> nn.Module:
    """Return a module with the attributes that are read off torchvision's."""
    net = nn.Module()
    pools = {"box": ((7, 7), 2), "mask": ((14, 14), 2)} | changes.pop("pools", {})
    settings = {
        "box_coder": SimpleNamespace(weights=changes.pop("weights", (10.0, 10.0, 5.0, 5.0))),
        **{
            f"{name}_roi_pool": SimpleNamespace(output_size=size, sampling_ratio=samples)
            for name, (size, samples) in pools.items()
        },
        "score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 100,
    }  # fmt: skip
    ratios = changes.pop("ratios", ((0.5, 1.0, 2.0),) * 5)
    vars(net).update(
        rpn=SimpleNamespace(
            anchor_generator=SimpleNamespace(sizes=((32,),) * 5, aspect_ratios=ratios),
            _pre_nms_top_n={"testing": changes.pop("before", 1000)},
            _post_nms_top_n={"testing": 1000},
            nms_thresh=0.7,
            score_thresh=0.0,
        ),
        roi_heads=SimpleNamespace(**settings),
        transform=SimpleNamespace(image_mean=[0.5] * 3, image_std=[0.2] * 3),
    )
    assert not changes
    return net


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pools": {"box": ((5, 5), 2)}}, r"output size and samples \(\(5, 5\), 2\)"),
        ({"pools": {"mask": ((14, 14), 0)}}, "other heads are not supported"),
        ({"weights": (1.0, 1.0, 1.0, 1.0)}, "not 10 10 5 5"),
        ({"ratios": ((0.5, 1.0), (1.0,))}, "the levels have different aspect ratios"),
        ({"before": 4000}, "4000 boxes at a step, TensorRT's TopK takes 3840"),
        ({}, "no mask head; export a Faster R-CNN as Detection"),
    ],
)
def test_heads_that_the_graph_cannot_hold_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        InstanceSegmentation(built_as_torchvision_does(**changes), size=SIZE, classes=CLASSES)


def test_a_keypoint_r_cnn_is_told_apart() -> None:
    net = built_as_torchvision_does()
    net.roi_heads.keypoint_predictor = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ExportError, match="no task has a Keypoint R-CNN's points"):
        InstanceSegmentation(net, size=SIZE, classes=CLASSES)


def test_torchvision_s_checkpoint_loads_strictly(torchvision: ModuleType) -> None:
    theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    maskrcnn_resnet50().load_state_dict(theirs.state_dict(), strict=True)


@pytest.mark.parametrize("size", [(320, 320), (512, 512), (320, 448), (352, 480)])
def test_all_of_torchvision_s_detections_are_found(
    torchvision: ModuleType, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=min(size), max_size=max(size)
    ).eval()
    frame = pictures(1, size)
    picture = torch.from_numpy(frame[0]).permute(2, 0, 1).float() / 255
    tame(theirs, picture)
    with torch.no_grad():
        (expected,) = theirs([picture])
    net = InstanceSegmentation(theirs, size=size, classes=[f"c{i}" for i in range(90)])
    found = {k: torch.as_tensor(v[0]) for k, v in net.reference({"frame": frame}).items()}
    assert len(expected["scores"]) == 100 == int(found["count"])
    overlap = torchvision.ops.box_iou(expected["boxes"], found["boxes"])
    same = expected["labels"][:, None] == found["labels"][None]
    best, match = (overlap * same).max(1)
    assert best.min() > 0.99
    torch.testing.assert_close(found["scores"][match], expected["scores"], rtol=0, atol=1e-4)
    paste = torchvision.models.detection.roi_heads.paste_masks_in_image
    masks = paste(found["masks"][match][:, None], found["boxes"][match], size)
    assert ((masks > 0.5) != (expected["masks"] > 0.5)).float().mean() <= 1e-5


def tame(net: Any, picture: Tensor) -> None:
    """Spread what random weights say as trained ones do, layer by layer, in one pass."""
    heads = net.roi_heads
    spreads = [
        *((block[0], 1.0) for block in net.backbone.fpn.layer_blocks),
        (net.rpn.head.cls_logits, 2.0),
        (net.rpn.head.bbox_pred, 0.2),
        (heads.box_predictor.cls_score, 2.0),
        (heads.box_predictor.bbox_pred, 0.5),
        (heads.mask_predictor.mask_fcn_logits, 2.0),
    ]
    hooks = []
    for layer, spread in spreads:

        def scale(part: Any, values: object, out: Tensor, spread: float = spread) -> Tensor:
            factor = spread / out.std()
            part.weight.mul_(factor)
            part.bias.zero_()
            return (out - out.mean()) * factor

        hooks.append(layer.register_forward_hook(scale))
    with torch.no_grad():
        net([picture])
    for hook in hooks:
        hook.remove()
