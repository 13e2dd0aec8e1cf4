"""What a TensorRT version on a GPU can and cannot do: one table of rules, each with its source.

Sources: NVIDIA's TensorRT release notes and DLA pages (10.3 to 11.4.1), its version compatibility
page, the CUDA programming guide's table of compute capabilities; read in November 2026.
"""

from __future__ import annotations

# First and last TensorRT with a DLA, where the GPU is Orin's; 11.0 to 11.4.0 have none.
_DLA_SM = "8.7"
_DLA_VERSIONS = (((10, 3), (10, 7)), ((11, 4, 1), (99,)))
# Plans built version-compatible run on a newer TensorRT of their major, and of these later ones.
_LATER_MAJORS = {8: (10,), 10: (11,)}
# First compute capability whose tensor cores take the type, and first TensorRT that builds it.
_DTYPES = {
    "fp16": ((5, 3), (8, 0)),
    "int8": ((6, 1), (8, 0)),
    "bf16": ((8, 0), (10, 0)),
    "fp8": ((8, 9), (10, 0)),
    "fp4": ((10, 0), (10, 9)),
}


def dla_reason(sm: str, version: str) -> str:
    """Return why TensorRT `version` uses no DLA on a GPU of `sm`; empty if it does.

    A version of two parts, such as "11.4", stands for the newest of its releases.
    """
    if sm != _DLA_SM:
        return f"only Orin (SM {_DLA_SM}) has a DLA that TensorRT uses; this is SM {sm}"
    found = numbers(version)
    newest = (*found, 99) if len(found) < 3 else found
    for first, last in _DLA_VERSIONS:
        if first <= newest and found[: len(last)] <= last:
            return ""
    return f"TensorRT {version} has no DLA; 10.3 to 10.7 and 11.4.1 or later have"


def can_run_plan(built: str, here: str, *, version_compatible: bool) -> bool:
    """Whether TensorRT `here` runs a plan of TensorRT `built`."""
    made, runs = numbers(built), numbers(here)
    if not version_compatible:
        return made[:3] == runs[:3]
    if made[0] == runs[0]:
        return runs >= made
    return runs[0] in _LATER_MAJORS.get(made[0], ())


def dtype_reason(dtype: str, sm: str, version: str) -> str:
    """Return why `dtype` ("fp16", "int8", "bf16", "fp8", "fp4") cannot be used; empty if it can."""
    first_sm, first_version = _DTYPES[dtype]
    if numbers(sm) < first_sm:
        return f"{dtype} needs SM {first_sm[0]}.{first_sm[1]} or later; this is SM {sm}"
    if numbers(version) < first_version:
        return f"{dtype} needs TensorRT {first_version[0]}.{first_version[1]} or later"
    return ""


def numbers(version: str) -> tuple[int, ...]:
    """Return (10, 3, 0) for "10.3.0"; parts that are no numbers end it."""
    found: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)
