"""Who made a bundle: an Ed25519 signature over its manifest, and so over every file that it lists.

`signature.json` is the one file of a bundle that its manifest does not list. It signs the
manifest's SHA-256 and a version that only grows, so that an older bundle, soundly signed once, can
be refused; and, if asked for, the last day on which it may be used. What it does not protect is in
docs/trust.md, why it is as it is in docs/adr/0011. Source: RFC 8032, pure Ed25519.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shlex
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgevision._optional import require
from edgevision.bundle.directory import SIGNATURE, Bundle
from edgevision.bundle.files import PathLike, open_plain, write_new
from edgevision.errors import FileReadError, FileWriteError, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PASSPHRASE = "EDGEVISION_KEY_PASSPHRASE"

_DOMAIN = b"edgevision bundle signature 1\0"
_DOMAIN_WITH_DAY = b"edgevision bundle signature 2\0"
_MAX_VERSION = (1 << 63) - 1
_MAX_KEY_BYTES = 16 << 10
_HEX = set("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Signature:
    """What `signature.json` says.

    Attributes:
        key: the first 16 hex digits of the SHA-256 of the public key's 32 bytes.
        version: grows with each release; what roll-back protection compares.
        signature: the 64 bytes as 128 hex digits.
        expires: the last day on which it holds, UTC, as "2027-06-30"; empty for every day.
    """

    key: str
    version: int
    signature: str
    expires: str = ""

    def to_bytes(self) -> bytes:
        """Return the file's content; there is one way to write it."""
        payload = {
            "algorithm": "ed25519",
            "key": self.key,
            # What holds for ever is as it was before there were days: old devices take it.
            **({"expires": self.expires, "schema": 2} if self.expires else {"schema": 1}),
            "signature": self.signature,
            "version": self.version,
        }
        return (json.dumps(payload, sort_keys=True) + "\n").encode()

    def message(self, manifest_sha256: str) -> bytes:
        """Return what is signed."""
        version, digest = self.version.to_bytes(8, "big"), bytes.fromhex(manifest_sha256)
        if not self.expires:
            return _DOMAIN + version + digest
        return _DOMAIN_WITH_DAY + version + self.expires.encode() + digest

    @staticmethod
    def from_bytes(content: bytes) -> Signature:
        """Read what `to_bytes` wrote, byte for byte.

        Raises:
            SignatureError: it is anything else.
        """
        try:
            payload = json.loads(content)
            found = Signature(
                payload["key"], payload["version"], payload["signature"], payload.get("expires", "")
            )
            is_sound = (
                type(found.version) is int
                and 1 <= found.version <= _MAX_VERSION
                and _is_hex(found.key, 16)
                and _is_hex(found.signature, 128)
                and (found.expires == "" or _is_day(found.expires))
                and found.to_bytes() == content
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            is_sound = False
        if not is_sound:
            raise SignatureError(
                f"{SIGNATURE} is not as `edgevision sign` writes it. Get the bundle again from "
                "where it was signed"
            )
        return found


def keygen(name: PathLike) -> tuple[Path, Path]:
    """Make a key pair, NAME.key for only this user and NAME.pub; returns both paths.

    With EDGEVISION_KEY_PASSPHRASE set, the private key is encrypted by it.

    Raises:
        FileWriteError: one of the files exists already, or cannot be written.
        MissingDependencyError: cryptography is not installed.
    """
    ed25519, serialization = _crypto()
    private = ed25519.Ed25519PrivateKey.generate()
    kept = serialization.Encoding.PEM
    secret = private.private_bytes(
        kept, serialization.PrivateFormat.PKCS8, _encryption(serialization)
    )
    public = private.public_key().public_bytes(
        kept, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    paths = Path(f"{os.fspath(name)}.key"), Path(f"{os.fspath(name)}.pub")
    if there := [str(path) for path in paths if os.path.lexists(path)]:
        raise FileWriteError(
            f"{' and '.join(there)} is there already and is not replaced: bundles may be signed "
            "with it. Choose another name"
        )
    try:
        write_new(paths[0], secret, mode=0o600)
        try:
            write_new(paths[1], public, mode=0o644)
        except BaseException:
            paths[0].unlink()
            raise
    except OSError as error:
        raise FileWriteError(
            f"could not write '{error.filename or paths[0]}': {error.strerror}"
        ) from error
    return paths


def sign(bundle: PathLike, key: PathLike, *, version: int, expires: str = "") -> Signature:
    """Sign the bundle at a path in place; its hashes are checked first.

    Args:
        bundle: the bundle's directory.
        key: the private key's file.
        version: at least that of a signature that is there. Whoever releases counts, e.g. by the
            number of a CI's run: a folder that is made again each time cannot know.
        expires: the last day on which devices take it, UTC, as "2027-06-30"; empty for ever. By
            the device's own clock, so it is for devices whose clock nobody turns back.

    Raises:
        ValueError: the version is not positive, or `expires` is not a day.
        BundleError: it is not a valid bundle, or the signature could not be written.
        FileReadError: the key's file cannot be read, or holds no Ed25519 key.
        SignatureError: the version is below the one that is signed already.
        MissingDependencyError: cryptography is not installed.
    """
    opened = Bundle.open(bundle)
    before = Signature.from_bytes(opened.signature).version if opened.signature else 0
    if not 1 <= version <= _MAX_VERSION:
        raise ValueError(f"version: got {version}, expected 1 or more")
    if expires and not _is_day(expires):
        raise ValueError(f"expires: got {expires[:40]!r}, expected a day such as 2027-06-30")
    if version < before:
        raise SignatureError(
            f"'{opened.root}' is signed as version {before} already, and {version} is lower: a "
            "device that saw it would refuse the new one. Give a higher version"
        )
    private = _private_key(Path(key))
    blank = Signature(key_id(private.public_key()), version, "", expires)
    signature = replace(blank, signature=private.sign(blank.message(opened.manifest_sha256)).hex())
    opened.write_signature(signature.to_bytes())
    return signature


def check_signature(bundle: Bundle, *keys: PathLike, minimum_version: int = 0) -> Signature:
    """Return the signature of an open bundle if one of `keys` made it and it is new enough.

    Raises:
        SignatureError: it is unsigned, signed by another key, changed since, too old, or expired.
        FileReadError: a key's file cannot be read, or holds no Ed25519 public key.
        MissingDependencyError: cryptography is not installed.
    """
    known = {key_id(public): public for public in (_public_key(Path(key)) for key in keys)}
    if bundle.signature is None:
        raise SignatureError(
            f"'{bundle.root}' is not signed. Sign it where it was made: edgevision sign "
            f"{shlex.quote(bundle.root.name)} --key NAME.key --version N"
        )
    found = Signature.from_bytes(bundle.signature)
    if found.key not in known:
        given = ", ".join(f"'{os.fspath(k)}' is key {i}" for k, i in zip(keys, known, strict=False))
        raise SignatureError(
            f"'{bundle.root}' is signed by key {found.key}, {given}. Give the key that belongs to "
            "it, or do not trust it"
        )
    invalid = require("cryptography.exceptions", extra="sign").InvalidSignature
    try:
        known[found.key].verify(
            bytes.fromhex(found.signature), found.message(bundle.manifest_sha256)
        )
    except invalid as error:
        raise SignatureError(
            f"'{bundle.root}' is not what key {found.key} signed: its manifest or its version was "
            "changed afterwards. Do not use it; get it again from where it was signed"
        ) from error
    if found.version < minimum_version:
        raise SignatureError(
            f"'{bundle.root}' is version {found.version}, below the minimum {minimum_version}: it "
            "was soundly signed, and is older than what this device may run"
        )
    if found.expires and found.expires < (today := time.strftime("%Y-%m-%d", time.gmtime())):
        raise SignatureError(
            f"'{bundle.root}' was signed to be used until {found.expires}, and today is {today}. "
            "Get a newer release, or have it signed again"
        )
    return found


def key_id(public: Ed25519PublicKey) -> str:
    """Return the name by which signatures call a key."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def _private_key(path: Path) -> Ed25519PrivateKey:
    ed25519, serialization = _crypto()
    content = _read_key(path, is_private=True)
    passphrase = os.environ.get(PASSPHRASE)
    try:
        key = serialization.load_pem_private_key(
            content, passphrase.encode() if passphrase else None
        )
    except TypeError as error:  # encrypted and no passphrase, or the other way round
        raise FileReadError(
            f"'{path}' cannot be opened: {error}. Set {PASSPHRASE} if, and only if, it is encrypted"
        ) from error
    except (ValueError, _unsupported()) as error:
        raise FileReadError(
            f"'{path}' is not a private key, or {PASSPHRASE} is wrong. `edgevision keygen NAME` "
            "makes one"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise FileReadError(f"'{path}' is no Ed25519 key: `edgevision keygen NAME` makes one")
    return cast("Ed25519PrivateKey", key)


def _public_key(path: Path) -> Ed25519PublicKey:
    ed25519, serialization = _crypto()
    content = _read_key(path, is_private=False)
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, _unsupported()) as error:
        raise FileReadError(
            f"'{path}' is not a public key. `edgevision keygen NAME` writes one as NAME.pub"
        ) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise FileReadError(f"'{path}' is no Ed25519 key: `edgevision keygen NAME` makes one")
    return cast("Ed25519PublicKey", key)


def _read_key(path: Path, *, is_private: bool) -> bytes:
    try:
        # Links are followed: that is how secrets are mounted into containers.
        with open_plain(path, max_bytes=_MAX_KEY_BYTES, follow_links=True) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except OSError as error:
        raise FileReadError(f"the key '{path}' cannot be read: {error.strerror}") from error
    if not is_private and mode & stat.S_IWOTH:
        raise FileReadError(
            f"everybody may write '{path}', so it says nothing of who signed: chmod 644 "
            f"{shlex.quote(str(path))}, if it is still the key that you know"
        )
    if is_private and stat.S_IMODE(mode) & 0o077:
        raise FileReadError(
            f"'{path}' can be read by others (mode {stat.S_IMODE(mode):o}), so it is not a secret: "
            f"chmod 600 {shlex.quote(str(path))}, or make another key"
        )
    return content


def _crypto() -> tuple[Any, Any]:
    primitives = "cryptography.hazmat.primitives"
    return (
        require(f"{primitives}.asymmetric.ed25519", extra="sign"),
        require(f"{primitives}.serialization", extra="sign"),
    )


def _unsupported() -> type[Exception]:
    found: type[Exception] = require("cryptography.exceptions", extra="sign").UnsupportedAlgorithm
    return found


def _encryption(serialization: Any) -> Any:
    passphrase = os.environ.get(PASSPHRASE)
    if not passphrase:
        return serialization.NoEncryption()
    return serialization.BestAvailableEncryption(passphrase.encode())


def _is_hex(text: object, length: int) -> bool:
    return isinstance(text, str) and len(text) == length and set(text) <= _HEX


def _is_day(text: object) -> bool:
    try:
        return isinstance(text, str) and datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
