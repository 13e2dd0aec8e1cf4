"""Tests of what the machine says of itself: whether sums of 8-bit products saturate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgevision.bundle.flavours import ORT
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


def test_two_machines_of_one_processor_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for number in ("1" * 32, "2" * 32, "", "uninitialized"):

        def read(path: Path, number: str = number, **_: Any) -> str:
            return number if path == Path("/etc/machine-id") else "model name : Cortex-A78AE\n"

        machine.cpu_name.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", read)
            names.append(machine.machine_name(ORT))
            assert machine.processor_name(ORT) == machine.cpu_name()
    machine.cpu_name.cache_clear()
    assert len(set(names)) == 3
    assert names[2] == names[3]
    assert "1" * 32 not in names[0], "the number itself is shown to nobody"
