"""Manifests of older schemas: one step from each version to the next, on the parsed JSON.

A step sees what another version wrote and a stranger may have changed: it moves fields and leaves
every check to the reader behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgevision.errors import BundleFormatError

SCHEMA = 1
"""Version of the manifest's form that is written."""

Fields = dict[str, object]
Step = Callable[[Fields], Fields]

STEPS: Mapping[int, Step] = {}
"""From the fields of a schema to those of the next one; one for each version before `SCHEMA`."""


def migrate(fields: Fields, schema: int) -> Fields:
    """Return a manifest's fields as the newest schema has them.

    Args:
        fields: the manifest, parsed.
        schema: what it says it is of.

    Raises:
        BundleFormatError: a newer edgevision made it, or there is no such version.
    """
    if not 1 <= schema <= SCHEMA:
        raise BundleFormatError(
            f"manifest: schema {schema}, this edgevision reads 1 to {SCHEMA}. "
            "Install the edgevision that made the bundle, or build it again."
        )
    for version in range(schema, SCHEMA):
        fields = STEPS[version](fields)
    return fields
