"""The builder for OpenVINO on CPUs: the artifact is the graph itself, which OpenVINO has read."""

from __future__ import annotations

import importlib.util

from edgevision._optional import installed_version
from edgevision.bundle.flavours import OPENVINO
from edgevision.bundle.targets import TargetProfile
from edgevision.engines.portable import pass_on
from edgevision.engines.request import BuildRequest, BuildResult
from edgevision.progress import Progress


class OpenVinoBuilder:
    """Checks that OpenVINO compiles the graph, and passes it on byte for byte."""

    flavour = OPENVINO

    def unavailable(self, target: TargetProfile) -> str | None:
        """Return why this machine cannot build for `target`; None if it can."""
        if importlib.util.find_spec("openvino") is None:
            return f"{OPENVINO.title} is not installed; {OPENVINO.remedy}"
        return None

    def version(self) -> str | None:
        """Return OpenVINO's version; None if it is not installed."""
        return installed_version("openvino")

    def build(self, request: BuildRequest, progress: Progress) -> BuildResult:
        """Write the artifact to `request.output`.

        Raises:
            BuildError: OpenVINO refuses the graph, or a profile does not fit it.
        """
        return pass_on(request, self.flavour, progress)


BUILDER = OpenVinoBuilder()
