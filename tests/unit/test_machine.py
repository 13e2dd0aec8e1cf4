"""Tests of what the machine says of itself: whether sums of 8-bit products saturate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgevision.machine import identity as machine


@pytest.mark.parametrize(
    ("kind", "cpuinfo", "overflow"),
    [
        ("x86_64", "model name : AMD EPYC\nflags : sse4_1 avx avx2 f16c\n", True),
        ("x86_64", "model name : AMD EPYC\nflags : sse4_1 avx avx2 avx512_vnni\n", False),
        ("x86_64", "model name : Core\nflags : avx avx2 avx_vnni\n", False),
        ("AMD64", "", True),
        ("aarch64", "Features : fp asimd asimddp\n", False),
    ],
)
def test_products_overflow_on_x86_without_vnni(
    kind: str, cpuinfo: str, overflow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, **_: Any) -> str:
        assert path == Path("/proc/cpuinfo")
        return cpuinfo

    monkeypatch.setattr("platform.machine", lambda: kind)
    monkeypatch.setattr(Path, "read_text", read)
    assert machine.int8_dot_saturates.__wrapped__() is overflow
