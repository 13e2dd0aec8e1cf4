# %% [markdown]
# A walk through edgevision, cell by cell, as README shows it. It runs as a program, too:
#
#     python examples/tour.py        # in a folder that it may write to; a minute
"""A walk through edgevision: a net becomes an INT8 bundle, runs, and runs in a control loop."""

# %% What is yours: a trained net, frames, a camera
import time

import numpy as np
from PIL import Image
from torch import nn

from edgevision.export.zoo import shipped_photos

my_module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
net_size, frame_size = (72, 96), (144, 192)


def as_camera(path: str) -> np.ndarray:
    """Return a picture as the camera would give it, uint8[H, W, 3] RGB."""
    height, width = frame_size
    return np.asarray(Image.open(path).convert("RGB").resize((width, height)))


photos = sorted(shipped_photos().glob("*.jpg"))
frame = as_camera(photos[0])
camera = ((as_camera(path), time.perf_counter_ns()) for path in photos)
steer = print

# %% Typical frames, for INT8; two are too few for a net that matters
import shutil
from pathlib import Path

Path("frames").mkdir(exist_ok=True)
for photo in photos[:2]:
    shutil.copy(photo, "frames")

# %% A bundle, and an answer
import edgevision
from edgevision.export import SemanticSegmentation

net = SemanticSegmentation(  # any torch module that gives logits
    my_module, size=net_size, input_size=frame_size, classes=["road", "car", "person"]
)
edgevision.build(net, "road.ev", precision="int8", calibration="frames/")
with edgevision.load("road.ev") as model:  # numpy and one runtime; no torch
    result = model(frame)  # uint8[H, W, 3] in, class map out
    print(model.explain(), result.shares())
    picture = result.overlay(frame)

# %% A control loop
with edgevision.load("road.ev") as model:
    with model.stream(policy="latest", deadline_ms=50) as pipeline:
        for frame, stamp_ns in camera:
            pipeline.submit(frame, stamp_ns=stamp_ns)  # copied; never waits for the device
            newest = pipeline.latest()  # a ticket; None before the first answer
            if newest is not None and not newest.is_late:
                steer(newest.result())
        print(pipeline.counters())  # submitted, delivered, dropped, late, lost

# %% Look
Image.fromarray(picture).save("street.jpg")
