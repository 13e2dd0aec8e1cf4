"""What is asked of a bundle before anything in it is used: whose, how new, which model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from edgevision.bundle.directory import Bundle
from edgevision.bundle.files import PathLike
from edgevision.errors import SignatureError


@dataclass(frozen=True, slots=True)
class Trust:
    """What a caller asks for; nothing by default.

    Attributes:
        keys: the public keys' files, one of which must have signed; none if it may be unsigned.
        minimum_version: of the signature.
        name: of the model; None for any.
    """

    keys: tuple[PathLike, ...] = ()
    minimum_version: int = 0
    name: str | None = None

    def __post_init__(self) -> None:
        if self.minimum_version and not self.keys:
            raise ValueError(
                "minimum_version: a version proves nothing without a key: require_signature=, or "
                "--key NAME.pub on the command line"
            )

    @staticmethod
    def of(
        require_signature: PathLike | Sequence[PathLike] | None,
        minimum_version: int,
        expected_name: str | None,
    ) -> Trust:
        """Return what `load`'s arguments ask for.

        Raises:
            ValueError: a version without a key, or an empty list of keys.
        """
        keys: tuple[PathLike, ...] = ()
        if isinstance(require_signature, str | os.PathLike):
            keys = (require_signature,)
        elif require_signature is not None:
            keys = tuple(require_signature)
            if not keys:
                raise ValueError("require_signature: got no key; give one, or None for no check")
        return Trust(keys, minimum_version, expected_name)

    def open(self, bundle: Bundle | PathLike, *, is_measured: bool = False) -> Bundle:
        """Return the open bundle, judged as it was opened: what is used later is what was judged.

        Args:
            bundle: the bundle's directory, or an open bundle.
            is_measured: take also what is older than what ran here: a comparison needs it.

        Raises:
            BundleError: it is not a valid bundle.
            SignatureError: it is unsigned, signed by another, changed since, too old, or another
                model.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        if self.keys:  # imported by who asks: a first answer has no need of it
            from edgevision.bundle.signature import check_signature
            from edgevision.bundle.state import floor

            found = check_signature(opened, *self.keys, minimum_version=self.minimum_version)
            ran = 0 if is_measured else floor(opened.manifest.name)
            if found.version < ran:
                raise SignatureError(
                    f"'{opened.root}' is version {found.version} of '{opened.manifest.name}', and "
                    f"version {ran} ran on this device: an older release does not come back. To "
                    "take it back, sign it again with a higher version"
                )
        if self.name is not None and opened.manifest.name != self.name:
            raise SignatureError(
                f"'{opened.root}' is the model '{opened.manifest.name}', expected '{self.name}': "
                "give the bundle that belongs here, or another name: expected_name=, --name"
            )
        return opened

    def keep(self, bundle: Bundle) -> None:
        """Refuse from now on what is older than this bundle, which runs here; it was judged.

        Raises:
            SignatureError: that cannot be kept.
        """
        if self.keys and bundle.signature is not None:
            from edgevision.bundle.signature import Signature
            from edgevision.bundle.state import raise_floor

            version = Signature.from_bytes(bundle.signature).version
            raise_floor(bundle.manifest.name, version)

    def arguments(self) -> list[str]:
        """Return what tells a process of ours the same, which reads it by `from_argument`."""
        if self == Trust():
            return []
        keys = [os.path.abspath(key) for key in self.keys]
        return ["--trust", json.dumps([keys, self.minimum_version, self.name])]

    @staticmethod
    def from_argument(text: str) -> Trust:
        """Read what follows `--trust` in `arguments`."""
        keys, minimum_version, name = json.loads(text)
        return Trust(tuple(keys), minimum_version, name)
