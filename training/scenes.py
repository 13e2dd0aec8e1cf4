"""Compose scenes of handwritten digits over photos, with every kind of truth at once.

    python training/scenes.py --digits DIGITS.npz --photos FOLDER --out grid.png
    python training/scenes.py --digits DIGITS.npz --photos FOLDER --part unseen --coco OUT

DIGITS is an .npz with `images: uint8[N, 28, 28]` and `labels: uint8[N]`; every .jpg in FOLDER is a
background. The sheet shows scenes beside their class maps, with boxes and captions. OUT receives
`images/`, `instances.json` and `captions.json`, which `edgevision build --evaluate OUT` scores
detectors and captioners on (captioners with `--most 3`, as they were taught); nets of this
repository never saw what the part "unseen" is made of. A scene depends on the stock, the options
and (seed, index) alone: all arithmetic is on integers, and the random bits come from PCG64, whose
stream numpy promises not to change.
"""

from __future__ import annotations

import argparse
import colorsys
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Frame = npt.NDArray[np.uint8]
Colour = npt.NDArray[np.int64]
Box = tuple[int, int, int, int]

CLASSES = ("background", *"0123456789")
VOCABULARY = (
    *(",", "a", "above", "an", "and", "at", "below", "bottom", "in", "left", "middle", "of", "on"),
    *("right", "the", "to", "top", *"0123456789"),
)
SIZE = (128, 160)
DIGIT_SIDES = (40, 72)
# Luminance, so that a digit never melts into what lies behind it.
CONTRAST = 90
PLACINGS = 400
# Of scenes for detectors; captions want fewer.
MOST_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Stock:
    """What scenes are made of: photos `uint8[H, W, 3]`, digits `uint8[N, 28, 28]`, their labels."""

    photos: tuple[Frame, ...]
    digits: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scene:
    """One frame and its truth; no digit covers another.

    Attributes:
        frame: `uint8[H, W, 3]` RGB.
        class_map: `uint8[H, W]`, indices into `CLASSES`.
        masks: `bool[N, H, W]`.
        boxes: `float32[N, 4]`, xyxy in pixels, the far edges exclusive.
        labels: `int64[N]`, indices into `CLASSES`.
        caption: words of `VOCABULARY`, a space before each but the first and the comma.
    """

    frame: Frame
    class_map: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    caption: str


class Dice:
    """Random integers that are the same with every numpy."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(key)

    def between(self, low: int, high: int) -> int:
        """Draw from `low` to `high`, both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)


def compose(
    stock: Stock, seed: int, index: int, *, size: tuple[int, int] = SIZE, most: int = 3
) -> Scene:
    """Compose scene `index` of the endless series that `seed` names.

    Args:
        stock: photos and digits to draw from.
        seed: names the series.
        index: which scene of it.
        size: height and width of the frame in pixels.
        most: digits in a scene at most; there is at least one.

    Raises:
        ValueError: a photo is smaller than `size`, or so many digits do not fit.
    """
    # The length stands in the key because numpy takes its trailing zeros for nothing.
    dice = Dice(2, seed, index)
    frame = background(stock.photos[dice.between(0, len(stock.photos) - 1)], size, dice)
    count = dice.between(1, most)
    chosen = [dice.between(0, len(stock.digits) - 1) for _ in range(count)]
    inks = [ink(stock.digits[i], dice.between(*DIGIT_SIDES)) for i in chosen]
    labels = [int(stock.labels[i]) + 1 for i in chosen]
    boxes, caption = arrange([part.shape for part in inks], labels, size, dice)

    class_map = np.zeros(size, np.uint8)
    masks = np.zeros((count, *size), np.bool_)
    for mask, part, label, (left, top, right, bottom) in zip(
        masks, inks, labels, boxes, strict=True
    ):
        behind = frame[top:bottom, left:right].astype(np.int64)
        alpha = part[:, :, np.newaxis]
        mixed = behind * (255 - alpha) + contrasting(behind, dice) * alpha
        frame[top:bottom, left:right] = (mixed + 127) // 255
        mask[top:bottom, left:right] = part >= 128
        class_map[mask] = label
    return Scene(
        frame,
        class_map,
        masks,
        np.array(boxes, np.float32),
        np.array(labels, np.int64),
        caption,
    )


def background(photo: Frame, size: tuple[int, int], dice: Dice) -> Frame:
    """Cut a window out of `photo`, shrink it to `size` by a whole number, perhaps mirror it."""
    height, width = size
    largest = min(photo.shape[0] // height, photo.shape[1] // width)
    if largest < 1:
        raise ValueError(
            f"a photo is {photo.shape[0]}x{photo.shape[1]}, scenes are {height}x{width}: "
            "expected photos at least as large"
        )
    step = dice.between(1, largest)
    top = dice.between(0, photo.shape[0] - step * height)
    left = dice.between(0, photo.shape[1] - step * width)
    window = photo[top : top + step * height, left : left + step * width].astype(np.int64)
    shrunk = window.reshape(height, step, width, step, 3).sum((1, 3)) // step**2
    if dice.between(0, 1):
        shrunk = shrunk[:, ::-1]
    return shrunk.astype(np.uint8)


def ink(digit: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.int64]:
    """Enlarge a digit to `side` pixels bilinearly and cut it down to where it is half opaque."""
    # Positions in units of 1 / (2 * side) of a source pixel, centres upon centres.
    at = np.clip((2 * np.arange(side) + 1) * len(digit) - side, 0, 2 * side * (len(digit) - 1))
    low, weight = at // (2 * side), at % (2 * side)
    high = np.minimum(low + 1, len(digit) - 1)
    source = digit.astype(np.int64)
    rows = source[low] * (2 * side - weight)[:, None] + source[high] * weight[:, None]
    pixels = rows[:, low] * (2 * side - weight) + rows[:, high] * weight
    pixels //= 4 * side * side
    solid = pixels >= 128
    ys, xs = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if not len(ys):
        raise ValueError("a digit has no pixel of 128 or more, expected white on black")
    return pixels[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def contrasting(behind: Colour, dice: Dice) -> Colour:
    """Draw a colour that stands out against `behind: int64[H, W, 3]`."""
    ground = int(luminance(behind.reshape(-1, 3)).sum()) // behind[..., 0].size
    while True:
        colour = np.array([dice.between(0, 255) for _ in range(3)])
        if abs(int(luminance(colour)) - ground) >= CONTRAST:
            return colour


def luminance(colours: Colour) -> Colour:
    """Weigh red, green and blue as ITU-R BT.601 does, in 256ths."""
    return colours @ np.array([77, 150, 29]) // 256


def arrange(
    shapes: list[tuple[int, ...]], labels: list[int], size: tuple[int, int], dice: Dice
) -> tuple[list[Box], str]:
    """Place things of `shapes` apart from each other so that a caption is beyond doubt."""
    height, width = size
    if all(h <= height and w <= width for h, w in shapes):
        for _ in range(PLACINGS * len(shapes) ** 2):
            boxes = []
            for h, w in shapes:
                left, top = dice.between(0, width - w), dice.between(0, height - h)
                boxes.append((left, top, left + w, top + h))
            if apart(boxes):
                caption = describe(boxes, labels, size)
                if caption:
                    return boxes, caption
    raise ValueError(
        f"found no place for {len(shapes)} digits in {height}x{width}: "
        "ask for fewer digits or a larger size"
    )


def apart(boxes: list[Box]) -> bool:
    """Say whether no two boxes overlap."""
    return not any(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )


def describe(boxes: list[Box], labels: list[int], size: tuple[int, int]) -> str | None:
    """Say where the things are, or nothing where two wordings would be as good.

    One thing is placed in the frame. Of more, the two closest are set against each other, and the
    rest, from left to right, against the point between those.
    """
    names = [("an " if CLASSES[label] == "8" else "a ") + CLASSES[label] for label in labels]
    # Twice the centres, and four times the point between two of them, stay whole numbers.
    centres = [(left + right, top + bottom) for left, top, right, bottom in boxes]
    if len(boxes) == 1:
        where = place(centres[0], size)
        return f"{names[0]} {where}" if where else None
    pairs = sorted(
        ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2, i, j)
        for i, a in enumerate(centres)
        for j, b in enumerate(centres[:i])
    )
    nearest, one, other = pairs[0]
    if len(pairs) > 1 and 4 * pairs[1][0] < 5 * nearest:
        return None
    (ax, ay), (bx, by) = centres[one], centres[other]
    relation = direction(bx - ax, by - ay)
    if relation is None:
        return None
    if relation in ("left", "above"):
        one, other = other, one
    verb = "to the left of" if relation in ("left", "right") else "above"
    clauses = [f"{names[one]} {verb} {names[other]}"]
    for i in sorted(set(range(len(boxes))) - {one, other}, key=centres.__getitem__):
        relation = direction(2 * centres[i][0] - ax - bx, 2 * centres[i][1] - ay - by)
        if relation is None:
            return None
        where = f"on the {relation}" if relation in ("left", "right") else relation
        clauses.append(f"{names[i]} {where}")
    if len(clauses) == 1:
        return clauses[0]
    return f"{', '.join(clauses[:-1])}, and {clauses[-1]}"


def direction(x: int, y: int) -> str | None:
    """Name where (x, y) points; nothing where it is too near a diagonal."""
    if 2 * abs(x) >= 3 * abs(y):
        return "right" if x > 0 else "left"
    if 2 * abs(y) >= 3 * abs(x):
        return "below" if y > 0 else "above"
    return None


def place(centre: tuple[int, int], size: tuple[int, int]) -> str | None:
    """Name the part of the frame where a doubled `centre` lies; nothing between two parts."""
    height, width = size
    # From the frame's middle, in 1 / (height * width) of half a side.
    x, y = (centre[0] - width) * height, (centre[1] - height) * width
    far = max(abs(x), abs(y))
    if 5 * far <= height * width:
        return "in the middle"
    named = direction(x, y)
    if 3 * far < height * width or named is None:
        return None
    return {"above": "at the top", "below": "at the bottom"}.get(named, f"on the {named}")


def words(caption: str) -> list[str]:
    """Split a caption into words of `VOCABULARY`."""
    return caption.replace(",", " ,").split()


def read_stock(digits: Path, photos: Path) -> Stock:
    """Read the digits of an .npz and every .jpg of a folder, sorted by name."""
    with np.load(digits) as file:
        images, labels = file["images"], file["labels"]
    if images.shape != (len(labels), 28, 28) or images.dtype != np.uint8 or not len(labels):
        raise SystemExit(
            f"{digits}: images are {images.dtype}{list(images.shape)}, labels "
            f"{list(labels.shape)}, expected uint8[N, 28, 28] and [N]"
        )
    frames = tuple(np.asarray(Image.open(p).convert("RGB")) for p in sorted(photos.glob("*.jpg")))
    if not frames:
        raise SystemExit(f"{photos}: found no .jpg, expected a folder of photos")
    return Stock(frames, images, labels)


def split(stock: Stock) -> tuple[Stock, Stock]:
    """Return what is trained on, and the last fifth of digits and photos."""
    digits, photos = len(stock.digits) * 4 // 5, len(stock.photos) * 4 // 5
    return (
        Stock(stock.photos[:photos], stock.digits[:digits], stock.labels[:digits]),
        Stock(stock.photos[photos:], stock.digits[digits:], stock.labels[digits:]),
    )


def write_coco(scenes: list[Scene], folder: Path) -> None:
    """Write the scenes and what is in them as COCO does."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    annotations = []
    for number, scene in enumerate(scenes):
        Image.fromarray(scene.frame).save(folder / "images" / f"{number:04}.png")
        for box, label, mask in zip(scene.boxes, scene.labels, scene.masks, strict=True):
            left, top, right, bottom = box.tolist()
            # Runs down the columns, of 0 first.
            flat = np.concatenate([[0], mask.T.ravel(), [0]]).astype(np.int8)
            ends = [0, *np.flatnonzero(np.diff(flat)), mask.size]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {
                        "size": list(mask.shape),
                        "counts": np.diff(ends).tolist(),
                    },
                }
            )
    height, width = scenes[0].class_map.shape
    content = {
        "images": [
            {"id": n, "file_name": f"{n:04}.png", "height": height, "width": width}
            for n in range(len(scenes))
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES) if k],
        "annotations": annotations,
    }
    (folder / "instances.json").write_text(json.dumps(content) + "\n")
    said = [{"id": n, "image_id": n, "caption": scene.caption} for n, scene in enumerate(scenes)]
    captions = {"images": content["images"], "annotations": said}
    (folder / "captions.json").write_text(json.dumps(captions) + "\n")


def sheet(scenes: list[Scene], columns: int = 4) -> Image.Image:
    """Draw scenes with their boxes and captions, each beside its class map."""
    height, width = scenes[0].class_map.shape
    scale, line = 2, 28
    cell = (2 * scale * width + 8, scale * height + line)
    rows = -(-len(scenes) // columns)
    page = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    draw = ImageDraw.Draw(page)
    hues = [colorsys.hsv_to_rgb(k * 0.38 % 1, 0.8, 1) for k in range(1, len(CLASSES))]
    palette = (255 * np.array([(0, 0, 0), *hues])).astype(np.uint8)
    font = ImageFont.load_default(18)
    for k, scene in enumerate(scenes):
        x, y = k % columns * cell[0], k // columns * cell[1]
        for offset, pixels in ((0, scene.frame), (scale * width, palette[scene.class_map])):
            picture = Image.fromarray(pixels).resize((scale * width, scale * height), 0)
            page.paste(picture, (x + offset, y))
        for box, label in zip(scene.boxes, scene.labels, strict=True):
            colour = tuple(int(v) for v in palette[label])
            corners = [int(v) * scale + o for v, o in zip(box, (x, y, x - 1, y - 1), strict=True)]
            draw.rectangle(corners, outline=colour)
        draw.text((x + 4, y + scale * height + 3), scene.caption, "black", font)
    return page


def main() -> None:
    """Parse the arguments and draw a sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=Path, required=True, help=".npz with images and labels")
    parser.add_argument("--photos", type=Path, required=True, help="folder of .jpg backgrounds")
    parser.add_argument("--out", type=Path, help="where the sheet goes")
    parser.add_argument("--coco", type=Path, help="folder for scenes with COCO's JSON files")
    parser.add_argument("--count", type=int, default=200, help="scenes in that folder")
    parser.add_argument("--most", type=int, default=MOST_DIGITS, help="digits in a scene there")
    parser.add_argument("--part", choices=["all", "train", "unseen"], default="all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stock = read_stock(options.digits, options.photos)
    stock = dict(zip(("all", "train", "unseen"), (stock, *split(stock)), strict=True))[options.part]
    if options.coco:
        write_coco(
            [compose(stock, options.seed, i, most=options.most) for i in range(options.count)],
            options.coco,
        )
    if options.out:
        sheet([compose(stock, options.seed, index) for index in range(16)]).save(options.out)


if __name__ == "__main__":
    main()
