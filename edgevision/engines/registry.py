"""Which builder builds for a flavour, and whether this machine can build for a target."""

from __future__ import annotations

import importlib

from edgevision.bundle.flavours import Flavour
from edgevision.bundle.targets import TargetProfile
from edgevision.engines.request import Builder


def builder_for(flavour: Flavour) -> Builder:
    """Return the builder of a flavour."""
    builder: Builder = importlib.import_module(flavour.builder).BUILDER
    return builder


def unavailable(target: TargetProfile) -> str | None:
    """Return why this machine cannot build for `target`; None if it can."""
    return builder_for(target.flavour).unavailable(target)
