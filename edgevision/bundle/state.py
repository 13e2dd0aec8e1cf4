"""What this device keeps for itself: the key of its records, and which versions it ran last.

The folder is EDGEVISION_STATE, or edgevision/ in XDG_STATE_HOME or ~/.local/state. It holds
`device.key`, 32 random bytes for only this user; `floors.json`, the highest signed version of each
model that ran here; and `engines/`, what was finished here. Whoever can write it as this user is
this device: docs/trust.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from edgevision.bundle.files import open_folder, open_plain, read_plain, write_new, write_whole
from edgevision.bundle.locking import waited_lock
from edgevision.bundle.reading import parse, read_value
from edgevision.bundle.user_cache import user_folder
from edgevision.errors import SignatureError

_KEY, _FLOORS, _LOCK = "device.key", "floors.json", ".lock"
_KEY_BYTES = 32
_MAX_FLOORS_BYTES = 1 << 20
_LOCK_TIMEOUT_S = 60.0


def state_root() -> Path:
    """Return the folder, which may not be there yet.

    Raises:
        FileNotFoundError: this user has no home.
    """
    return user_folder("EDGEVISION_STATE", "XDG_STATE_HOME", ".local/state")


def engines_place(bundle: Path) -> Path:
    """Return where engines are finished for the bundle at a path, if nobody says otherwise."""
    place = hashlib.sha256(os.fsencode(bundle)).hexdigest()[:16]
    return state_root() / "engines" / f"{bundle.name}-{place}"


def authenticate(content: bytes) -> str:
    """Return what proves that this device wrote `content`; its key is made if it has none.

    Raises:
        OSError: the key cannot be made or read, or others may read it.
    """
    root = state_root()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError), _root():
        # Aside and linked into place: who reads a key reads a whole one, and nobody replaces one.
        partial = root / f".partial-key-{secrets.token_hex(8)}"
        try:
            write_new(partial, secrets.token_bytes(_KEY_BYTES), mode=0o600)
            os.link(partial, root / _KEY)
        finally:
            partial.unlink(missing_ok=True)
    return hmac.new(_key(), content, hashlib.sha256).hexdigest()


def is_authentic(content: bytes, proof: str) -> bool:
    """Whether `authenticate` gave `proof` for `content` on this device."""
    try:
        made = hmac.new(_key(), content, hashlib.sha256).hexdigest()
    except OSError:
        return False
    return hmac.compare_digest(made.encode(), proof.encode())


def floor(model: str) -> int:
    """Return the highest signed version of a model that ran here; 0 if none did.

    Raises:
        SignatureError: what is kept of it cannot be read: no version is taken then.
    """
    return _floors().get(model, 0)


def raise_floor(model: str, version: int) -> None:
    """Keep that a signed version ran; never lowers what is kept.

    Raises:
        SignatureError: it cannot be kept, so that an older version would be taken again.
    """
    if floor(model) >= version:
        return
    try:
        root = state_root()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (
            _root() as opened,
            waited_lock(_LOCK, folder=opened, timeout_s=_LOCK_TIMEOUT_S),
        ):
            kept = _floors()
            kept[model] = max(version, kept.get(model, 0))
            write_whole(root / _FLOORS, json.dumps(kept, sort_keys=True).encode(), mode=0o600)
    except OSError as error:
        raise _unkept(error) from error


def _floors() -> dict[str, int]:
    try:
        with _root() as root:
            content = read_plain(_FLOORS, max_bytes=_MAX_FLOORS_BYTES, is_ours=True, folder=root)
        return cast(dict[str, int], read_value(dict[str, int], parse(content), _FLOORS))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unkept(error) from error


def _key() -> bytes:
    with (
        _root() as root,
        open_plain(_KEY, max_bytes=_KEY_BYTES, is_ours=True, folder=root) as file,
    ):
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise PermissionError(0, f"'{state_root() / _KEY}' is open to others: remove it")
        key = file.read()
    if len(key) != _KEY_BYTES:
        raise PermissionError(0, f"'{state_root() / _KEY}' is not a key: remove it")
    return key


@contextlib.contextmanager
def _root() -> Iterator[int]:
    with open_folder(state_root(), is_ours=True, follow_links=True) as opened:
        yield opened


def _unkept(error: Exception) -> SignatureError:
    return SignatureError(
        "the versions that ran on this device cannot be kept, so an older one would be taken: "
        f"{getattr(error, 'strerror', None) or error}. Set EDGEVISION_STATE to a folder that only "
        "this user may write"
    )
