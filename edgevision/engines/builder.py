"""One build: an ONNX file becomes an artifact for one target, in a child process of its own.

A builder may crash, or be killed for memory; that must be an error message here. And
TensorRT-RTX gives the same bytes for the same graph only in a fresh process.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import IO, Protocol

from edgevision.errors import BuildError
from edgevision.manifest import profile_from_json, profile_to_json, spec_from_json, spec_to_json
from edgevision.progress import Progress, silent
from edgevision.targets import Flavour, TargetProfile, get_target
from edgevision.tensors import ShapeProfile, TensorSpec

_MAX_LOG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    Attributes:
        graph: the ONNX file.
        target: what for.
        output: where the artifact goes; a file there is replaced on success alone.
        profiles: bounds of the dynamic inputs, by name.
        workspace_bytes: most memory that the builder may use for tactics; None for its default.
        optimization_level: 0 (quick build) to 5; None for the builder's default.
    """

    graph: Path
    target: TargetProfile
    output: Path
    profiles: Mapping[str, ShapeProfile] = field(default_factory=dict)
    workspace_bytes: int | None = None
    optimization_level: int | None = None

    def to_json(self) -> str:
        """Return the request as one line of JSON."""
        return json.dumps(
            {
                "graph": str(self.graph),
                "target": self.target.name,
                "output": str(self.output),
                "profiles": {name: profile_to_json(p) for name, p in self.profiles.items()},
                "workspace_bytes": self.workspace_bytes,
                "optimization_level": self.optimization_level,
            }
        )

    @staticmethod
    def from_json(text: str) -> BuildRequest:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        profiles = {n: profile_from_json(p, n) for n, p in fields.pop("profiles").items()}
        return BuildRequest(
            graph=Path(fields.pop("graph")),
            target=get_target(fields.pop("target")),
            output=Path(fields.pop("output")),
            profiles=profiles,
            **fields,
        )


@dataclass(frozen=True, slots=True)
class Built:
    """What a builder made, as it says itself.

    Attributes:
        version: the builder's version.
        sm: CUDA compute capabilities that the artifact runs on; empty where none is needed.
        inputs: what goes in, as the builder saw it.
        outputs: what comes out, as the builder saw it.
    """

    version: str
    sm: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON."""
        return {
            "version": self.version,
            "sm": list(self.sm),
            "inputs": [spec_to_json(spec) for spec in self.inputs],
            "outputs": [spec_to_json(spec) for spec in self.outputs],
        }

    @staticmethod
    def from_json(fields: Mapping[str, list[object]]) -> Built:
        """Read what `to_json` wrote."""
        return Built(
            version=str(fields["version"]),
            sm=tuple(str(sm) for sm in fields["sm"]),
            inputs=tuple(spec_from_json(spec, "input") for spec in fields["inputs"]),
            outputs=tuple(spec_from_json(spec, "output") for spec in fields["outputs"]),
        )


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished artifact: what the builder said of it, how long it took, and the log."""

    path: Path
    built: Built
    seconds: float
    log: str


class Builder(Protocol):
    """Builds artifacts of one flavour.

    `unavailable` runs in the user's process and must stay light; `build` runs in a child.
    """

    def unavailable(self, target: TargetProfile) -> str | None:
        """Return why this machine cannot build for `target`; None if it can."""

    def build(self, request: BuildRequest, progress: Progress) -> Built:
        """Write the artifact to `request.output`.

        Raises:
            BuildError: the graph cannot be built; says which node and what to do.
        """


def builder_for(flavour: Flavour) -> Builder:
    """Return the builder of a flavour."""
    # Late, because a builder's module is needed in the child alone.
    if flavour is Flavour.ORT:
        from edgevision.engines.ort import OrtBuilder

        return OrtBuilder()
    if flavour is Flavour.TRT_RTX:
        from edgevision.engines.trt_rtx import RtxBuilder

        return RtxBuilder()
    from edgevision.engines.trt import TrtBuilder

    return TrtBuilder()


def unavailable(target: TargetProfile) -> str | None:
    """Return why this machine cannot build for `target`; None if it can."""
    return builder_for(target.flavour).unavailable(target)


def build_engine(
    request: BuildRequest, progress: Progress = silent, *, timeout_s: float | None = None
) -> BuildResult:
    """Build in a fresh child process; on any failure nothing is left at `request.output`.

    Raises:
        BuildError: the builder refused the graph, crashed, was killed, or took too long; `log` has
            what it said.
    """
    output = request.output
    partial = output.with_name(f".{output.name}.partial-{secrets.token_hex(6)}")
    inner = BuildRequest(
        request.graph,
        request.target,
        partial,
        request.profiles,
        request.workspace_bytes,
        request.optimization_level,
    )
    started = perf_counter()
    try:
        answer, log = _run_child(inner, progress, timeout_s)
        os.replace(partial, output)
    except FileNotFoundError as error:
        raise BuildError(f"the builder for '{request.target.name}' wrote no file") from error
    finally:
        partial.unlink(missing_ok=True)
    return BuildResult(output, Built.from_json(answer), perf_counter() - started, log)


def _run_child(
    request: BuildRequest, progress: Progress, timeout_s: float | None
) -> tuple[dict[str, list[object]], str]:
    """Run the child, show its progress, and return its answer and log."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "edgevision.engines.child", str(write_end), str(os.getpid())]
    answer: dict[str, dict[str, list[object]]] = {}
    with tempfile.TemporaryFile() as log:
        with os.fdopen(read_end, encoding="utf-8") as messages:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[write_end],
                start_new_session=True,
            )
            os.close(write_end)
            overdue = threading.Event()
            timer = threading.Timer(timeout_s or 0, _stop, (child, overdue))
            try:
                if timeout_s is not None:
                    timer.start()
                assert child.stdin is not None
                with child.stdin:
                    child.stdin.write(request.to_json().encode())
                answer = _listen(messages, progress)
                child.wait()
            finally:
                timer.cancel()
                if child.poll() is None:
                    _stop(child, threading.Event())
                    child.wait()
        text = _tail(log)
    name = request.target.name
    if overdue.is_set():
        raise BuildError(f"the build for '{name}' took longer than {timeout_s} s", log=text)
    if "error" in answer:
        raise BuildError(str(answer["error"]["message"]), log=text)
    if child.returncode or "built" not in answer:
        raise BuildError(_obituary(name, child.returncode), log=text)
    return answer["built"], text


def _listen(messages: IO[str], progress: Progress) -> dict[str, dict[str, list[object]]]:
    """Pass progress on until the child closes its pipe; return its last word."""
    answer: dict[str, dict[str, list[object]]] = {}
    for line in messages:
        try:
            message = json.loads(line)
        except ValueError:
            # A child that dies in the middle of a line.
            continue
        if "progress" in message:
            progress(*message["progress"])
        else:
            answer = message
    return answer


def _obituary(target: str, code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            f"the build for '{target}' was killed, most likely for memory. Close other programs, "
            "or lower workspace_bytes or optimization_level."
        )
    if code < 0:
        return (
            f"the builder for '{target}' crashed ({signal.Signals(-code).name}). The graph that "
            "did it is worth a report to the builder's makers."
        )
    return f"the builder for '{target}' ended with code {code} and no answer"


def _stop(child: subprocess.Popen[bytes], overdue: threading.Event) -> None:
    overdue.set()
    child.kill()


def _tail(log: IO[bytes]) -> str:
    size_bytes = log.seek(0, os.SEEK_END)
    log.seek(max(0, size_bytes - _MAX_LOG_BYTES))
    return log.read().decode("utf-8", "replace")
