"""The builder for OpenVINO on CPUs: the artifact is the graph itself, which OpenVINO has read."""

from __future__ import annotations

from edgevision.bundle.flavours import OPENVINO
from edgevision.engines.portable import PortableBuilder

BUILDER = PortableBuilder(OPENVINO)
