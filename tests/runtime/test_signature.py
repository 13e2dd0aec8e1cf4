"""Signed bundles: what is not exactly what the key signed is refused, by `load` itself."""

from __future__ import annotations

import base64
import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import edgevision
from edgevision.bundle.directory import SIGNATURE, Bundle, BundleWriter
from edgevision.bundle.manifest import FileEntry, Manifest
from edgevision.bundle.signature import PASSPHRASE, Signature, check_signature, keygen, sign
from edgevision.bundle.targets import get_target
from edgevision.cli import main
from edgevision.engines.finish import finish_target
from edgevision.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    FileReadError,
    FileWriteError,
    SignatureError,
    UnverifiedError,
)
from tests.parts.tiny_bundles import semantic_bundle

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return keygen(tmp_path_factory.mktemp("keys") / "ours")


@pytest.fixture
def signed(bundle: Bundle, keys: tuple[Path, Path]) -> Bundle:
    sign(bundle.root, keys[0], version=3)
    return Bundle.open(bundle.root)


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device on which nothing ran yet."""
    folder = tmp_path_factory.mktemp("device") / "state"
    monkeypatch.setenv("EDGEVISION_STATE", str(folder))
    return folder


def refused(bundle: Bundle, public: Path, message: str, minimum_version: int = 0) -> None:
    with pytest.raises(SignatureError, match=message):
        edgevision.load(bundle.root, require_signature=public, minimum_version=minimum_version)


def test_a_signed_bundle_loads(signed: Bundle, keys: tuple[Path, Path]) -> None:
    with edgevision.load(signed.root, require_signature=keys[1], minimum_version=3) as model:
        assert model.manifest == signed.manifest
    with edgevision.load(signed.root) as model:
        assert model.manifest == signed.manifest
    found = check_signature(signed, keys[1])
    assert found.version == 3
    assert sign(signed.root, keys[0], version=4).version == 4
    with pytest.raises(TypeError, match="version"):
        sign(signed.root, keys[0])  # type: ignore[call-arg]


def test_an_unsigned_one_is_refused(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    refused(
        bundle, keys[1], r"is not signed. Sign it where it was made: edgevision sign tiny\.ev --key"
    )


def test_one_signed_by_another_is_refused(
    bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other, _ = keygen(tmp_path / "other")
    sign(bundle.root, other, version=9)
    refused(bundle, keys[1], r"is signed by key \w{16}, '.*ours\.pub' is key \w{16}")


def test_one_that_claims_our_key_is_refused(
    bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other, _ = keygen(tmp_path / "other")
    ours = sign(bundle.root, keys[0], version=9)
    theirs = sign(bundle.root, other, version=9)
    Bundle.open(bundle.root).write_signature(replace(theirs, key=ours.key).to_bytes())
    refused(bundle, keys[1], "is not what key")


def test_a_roll_back_is_refused(signed: Bundle, keys: tuple[Path, Path]) -> None:
    refused(signed, keys[1], "is version 3, below the minimum 4", minimum_version=4)
    newer = replace(Signature.from_bytes(signed.signature or b""), version=4)
    signed.write_signature(newer.to_bytes())
    refused(signed, keys[1], "its manifest or its version was changed", minimum_version=4)
    with pytest.raises(ValueError, match="a version proves nothing without a key"):
        edgevision.load(signed.root, minimum_version=4)


def test_what_a_device_finished_is_as_good_as_signed_there(
    signed: Bundle, keys: tuple[Path, Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    finish_target(signed, get_target("local-cpu"))
    with edgevision.load(signed.root, require_signature=keys[1]) as model:
        assert "runs 'local-cpu'" in model.explain()
    assert main(["verify", str(signed.root), "--key", str(keys[1])]) == 0
    # Somebody else's record, all of it right but for the key that only this device has.
    elsewhere = state.with_name("elsewhere")
    monkeypatch.setenv("EDGEVISION_STATE", str(elsewhere))
    finish_target(signed, get_target("local-cpu"))
    shutil.rmtree(state / "engines")
    (elsewhere / "engines").rename(state / "engines")
    monkeypatch.setenv("EDGEVISION_STATE", str(state))
    with pytest.raises(UnverifiedError, match="this device did not write its record"):
        edgevision.load(signed.root, require_signature=keys[1])
    done = finish_target(signed, get_target("local-cpu"))
    assert done.seconds, "what was not authenticated is built again"
    # In a folder that the caller names, he answers for it.
    finish_target(signed, get_target("local-cpu"), engines=elsewhere)
    shutil.rmtree(state)
    with edgevision.load(signed.root, require_signature=keys[1], engines=elsewhere) as model:
        assert "runs 'local-cpu'" in model.explain()


def test_any_of_several_keys_signs(signed: Bundle, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keygen(tmp_path / "next")
    edgevision.load(signed.root, require_signature=[public, keys[1]]).close()
    sign(signed.root, private, version=4)
    edgevision.load(signed.root, require_signature=[public, keys[1]]).close()
    refused(signed, keys[1], "is signed by key")
    with pytest.raises(ValueError, match="require_signature: got no key"):
        edgevision.load(signed.root, require_signature=[])


def test_an_older_release_does_not_come_back(
    signed: Bundle, keys: tuple[Path, Path], state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = signed.signature or b""
    edgevision.load(signed.root).close()
    assert not state.exists(), "without a key nothing is kept"
    sign(signed.root, keys[0], version=5)
    edgevision.load(signed.root, require_signature=keys[1]).close()
    signed.write_signature(old)
    refused(signed, keys[1], f"version 3 of '{signed.manifest.name}', and version 5 ran on this")
    trusted = [str(signed.root), "--key", str(keys[1])]
    for verb in (["verify"], ["run"], ["finish", "--target", "local-cpu"]):
        assert main([*verb, *trusted]) == 1
        assert "an older release does not come back" in capsys.readouterr().err
    (state / "floors.json").write_text("[]")
    refused(signed, keys[1], "cannot be kept, so an older one would be taken")
    (state / "floors.json").unlink()
    edgevision.load(signed.root, require_signature=keys[1]).close()


def test_where_nothing_can_be_kept_nothing_signed_runs(
    signed: Bundle, keys: tuple[Path, Path], state: Path
) -> None:
    state.write_text("in the way")
    refused(signed, keys[1], "Set EDGEVISION_STATE to a folder")


def test_four_releases_at_once_leave_the_highest_floor(state: Path) -> None:
    raising = "import sys; from edgevision.bundle.state import raise_floor; "
    children = [
        subprocess.Popen([sys.executable, "-c", f"{raising} raise_floor('road', {version})"])
        for version in (3, 9, 1, 7)
    ]
    assert [child.wait() for child in children] == [0] * 4
    assert json.loads((state / "floors.json").read_text()) == {"road": 9}


def test_a_signature_ends_on_its_day(
    signed: Bundle, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("2031-02-30", "20310228", "soon", "2031-2-8"):
        with pytest.raises(ValueError, match="expected a day such as"):
            sign(signed.root, keys[0], version=5, expires=day)
    sign(signed.root, keys[0], version=4, expires="2031-02-28")
    today = ["2031-02-28"]
    monkeypatch.setattr("time.strftime", lambda *_: today[0])
    edgevision.load(signed.root, require_signature=keys[1]).close()
    today[0] = "2031-03-01"
    refused(signed, keys[1], "to be used until 2031-02-28, and today is 2031-03-01")
    made = Bundle.open(signed.root).signature or b""
    for change in ((b"2031", b"2041"), (b'"expires": "2031-02-28", ', b"")):
        signed.write_signature(made.replace(*change))
        with pytest.raises(SignatureError):
            edgevision.load(signed.root, require_signature=keys[1])


def test_a_key_that_everybody_may_write_says_nothing(
    signed: Bundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copy(keys[1], tmp_path / "open.pub")
    (tmp_path / "open.pub").chmod(0o666)
    with pytest.raises(FileReadError, match=r"everybody may write .* chmod 644"):
        check_signature(signed, tmp_path / "open.pub")


@pytest.mark.parametrize(
    "verb",
    [
        ["run"], ["verify"], ["check", "--target", "rtx"], ["bench", "--quick"],
        ["bench", "--harness", "loadgen"], ["finish", "--target", "local-cpu"],
        ["build", "--target", "local-cpu"],
    ],
    ids=lambda verb: " ".join(verb),
)  # fmt: skip
def test_every_verb_judges_the_bundle_that_it_opens(
    verb: list[str], signed: Bundle, keys: tuple[Path, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if verb[0] == "check":
        pytest.importorskip("torch")
    _, other = keygen(tmp_path / "other")
    root = tmp_path / "road.ev"
    signed.root.rename(root)
    for words, message in (
        (["--key", str(other)], "is signed by key"),
        (["--key", str(keys[1]), "--minimum-version", "4"], "below the minimum 4"),
        (["--key", str(keys[1]), "--name", "another"], "expected 'another'"),
        (["--minimum-version", "4"], "a version proves nothing without a key"),
    ):
        assert main([*verb, str(root), *words]) in (1, 2)
        told = capsys.readouterr().err
        assert message in told or "loadgen" in verb, told


def test_another_net_of_the_same_maker_is_refused(signed: Bundle, keys: tuple[Path, Path]) -> None:
    name = signed.manifest.name
    edgevision.load(signed.root, require_signature=keys[1], expected_name=name).close()
    with pytest.raises(SignatureError, match=f"is the model '{name}', expected 'another'"):
        edgevision.load(signed.root, require_signature=keys[1], expected_name="another")


def test_a_lower_version_is_not_signed(signed: Bundle, keys: tuple[Path, Path]) -> None:
    with pytest.raises(SignatureError, match="is signed as version 3 already, and 2 is lower"):
        sign(signed.root, keys[0], version=2)
    with pytest.raises(ValueError, match="version: got 0, expected 1 or more"):
        sign(signed.root, keys[0], version=0)


def test_a_signature_of_another_bundle_is_refused(
    signed: Bundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other = semantic_bundle(tmp_path / "other.ev", artifacts=())
    other.write_signature(signed.signature or b"")
    refused(Bundle.open(other.root), keys[1], "is not what key")


@pytest.mark.parametrize("name", ["stages/main/model.onnx", "golden.npz", "manifest.json"])
def test_any_file_that_was_changed_is_refused(
    signed: Bundle, keys: tuple[Path, Path], name: str
) -> None:
    file = signed.root / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError):
        edgevision.load(signed.root, require_signature=keys[1])


def test_a_manifest_that_lists_other_hashes_is_refused(
    signed: Bundle, keys: tuple[Path, Path]
) -> None:
    """The attack that hashes alone do not stop: file and manifest changed together."""
    with BundleWriter(signed.root) as writer:
        for entry in signed.manifest.files:
            if entry.path != "golden.npz":
                writer.add(entry.path, signed.read(entry.path))
        writer.add_golden("main", *signed.golden("main"))
        changed = writer.publish(replace(signed.manifest, name="changed", files=()))
    assert changed.signature is None, "what is published again has no signature"
    changed.write_signature(signed.signature or b"")
    refused(Bundle.open(changed.root), keys[1], "is not what key")


def test_a_bundle_that_is_broken_is_not_signed(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    (bundle.root / "stages/main/model.onnx").write_bytes(b"other")
    with pytest.raises(BundleIntegrityError):
        sign(bundle.root, keys[0], version=9)
    assert not (bundle.root / SIGNATURE).exists()
    assert [p.name for p in bundle.root.parent.iterdir()] == [bundle.root.name]


def test_the_signature_is_a_plain_small_file_that_no_manifest_lists(
    signed: Bundle, tmp_path: Path
) -> None:
    file = signed.root / SIGNATURE
    kept = file.read_bytes()
    file.write_bytes(b" " * 5000)
    with pytest.raises(BundleFormatError, match="larger than 4096 bytes"):
        Bundle.open(signed.root)
    file.unlink()
    (tmp_path / "elsewhere").write_bytes(kept)
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleIntegrityError):
        Bundle.open(signed.root)
    entry = FileEntry(SIGNATURE, 1, "0" * 64)
    with pytest.raises(BundleFormatError, match="listed twice"):
        replace(signed.manifest, files=(*signed.manifest.files, entry))
    with BundleWriter(tmp_path / "new.ev") as writer, pytest.raises(ValueError, match="itself"):
        writer.add(SIGNATURE, b"")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.rstrip(),
        lambda text: text.replace("ed25519", "none"),
        lambda text: text.replace('"schema": 1', '"schema": 2'),
        lambda text: text.replace('"version": 3', '"version": 3.0'),
        lambda text: text.replace('"version": 3', '"version": true'),
        lambda text: text.replace('"version": 3', '"version": "3"'),
        lambda text: text.replace('"version": 3', '"version": -3'),
        lambda text: text.replace('"version": 3', '"version": 3, "version": 3'),
        lambda text: text.replace('"version": 3', '"note": 1, "version": 3'),
        lambda text: text.replace('"version": 3', f'"version": {1 << 64}'),
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps(json.loads(text), indent=1),
        lambda text: text.replace(json.loads(text)["key"], json.loads(text)["key"].upper() + "A"),
        lambda _: "[]",
        lambda _: "null",
        lambda _: "",
        lambda _: "[" * 3000,
        lambda _: "\ud83d\udca9",
    ],
)
def test_there_is_one_way_to_write_a_signature(
    signed: Bundle, keys: tuple[Path, Path], change: object
) -> None:
    text = (signed.signature or b"").decode()
    changed = change(text)  # type: ignore[operator]
    if changed == text:
        pytest.fail("nothing was changed")
    signed.write_signature(changed.encode("utf-8", "surrogatepass"))
    refused(Bundle.open(signed.root), keys[1], "is not as `edgevision sign` writes it")


def mutations(content: bytes, other: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Give bytes unlike `content`: flipped, inserted, cut, swapped, spliced with `other`."""
    rng = random.Random(seed)
    while count:
        made = bytearray(content)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            at = rng.randrange(len(made))
            match rng.randrange(6):
                case 0:
                    made[at] ^= 1 << rng.randrange(8)
                case 1:
                    made[at:at] = bytes([rng.randrange(256)])
                case 2:
                    del made[at : at + rng.randrange(1, 4)]
                case 3:
                    to = rng.randrange(len(made))
                    made[at], made[to] = made[to], made[at]
                case 4:
                    made[at : at + 16] = other[at : at + 16]
                case _:
                    made[at] = rng.choice(b"0123456789abcdef")
            if not made:
                break
        if bytes(made) != content:
            count -= 1
            yield bytes(made)


def test_five_thousand_mutations_never_pass(
    signed: Bundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other = semantic_bundle(tmp_path / "other.ev", artifacts=())
    sign(other.root, keys[0], version=3)
    theirs = Bundle.open(other.root)
    manifest = (signed.root / "manifest.json").read_bytes()
    signature = signed.signature or b""
    passed = 0
    for made in mutations(signature, theirs.signature or b"", 2500, seed=1):
        try:
            check_signature(replace(signed, signature=made), keys[1])
            passed += 1
        except SignatureError:
            pass
    file = signed.root / "manifest.json"
    for number, made in enumerate(
        mutations(manifest, (theirs.root / "manifest.json").read_bytes(), 2500, seed=2)
    ):
        file.write_bytes(made)
        try:
            if number % 50 == 0:
                edgevision.load(signed.root, require_signature=keys[1]).close()
            else:
                check_signature(Bundle.open(signed.root, check_hashes=False), keys[1])
            passed += 1
        except BundleError:
            pass
    assert passed == 0
    file.write_bytes(manifest)
    assert check_signature(Bundle.open(signed.root), keys[1]).version == 3


def test_keys_are_never_replaced_and_private(tmp_path: Path) -> None:
    private, public = keygen(tmp_path / "k")
    assert private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileWriteError, match=r"k\.key and .*k\.pub is there already"):
        keygen(tmp_path / "k")
    public.unlink()
    with pytest.raises(FileWriteError, match=r"k\.key is there already and is not replaced"):
        keygen(tmp_path / "k")
    with pytest.raises(FileWriteError, match="could not write"):
        keygen(tmp_path / "nowhere" / "k")


def test_key_files_of_other_kinds_are_refused(
    signed: Bundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    elliptic = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    secret = elliptic.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = elliptic.public_key().public_bytes(
        pem, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    cases = {
        "gone.pub": (None, "cannot be read: No such file"),
        "text.pub": (b"hello", "is not a public key"),
        "swapped.pub": (keys[0].read_bytes(), "is not a public key"),
        "elliptic.pub": (public, "is no Ed25519 key"),
        "huge.pub": (b"-" * 20_000, "larger than 16384 bytes"),
        "unknown.pub": (unknown_algorithm(keys[1]), "is not a public key"),
    }
    os.mkfifo(tmp_path / "fifo.pub")
    with pytest.raises(FileReadError, match="cannot be read: it is not a regular file"):
        check_signature(signed, tmp_path / "fifo.pub")
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(FileReadError, match=message):
            check_signature(signed, tmp_path / name)
    for name, content, message in (
        ("text.key", b"hello", "is not a private key"),
        ("swapped.key", keys[1].read_bytes(), "is not a private key"),
        ("elliptic.key", secret, "is no Ed25519 key"),
    ):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(FileReadError, match=message):
            sign(signed.root, tmp_path / name, version=9)
    shutil.copy(keys[0], tmp_path / "open.key")
    (tmp_path / "open.key").chmod(0o644)
    with pytest.raises(FileReadError, match=r"can be read by others \(mode 644\)"):
        sign(signed.root, tmp_path / "open.key", version=9)


def unknown_algorithm(public: Path) -> bytes:
    """A public key whose object identifier nobody knows."""
    first, body, last = public.read_text().splitlines()
    der = bytearray(base64.b64decode(body))
    der[8] = 0x27
    return f"{first}\n{base64.b64encode(der).decode()}\n{last}\n".encode()


def test_a_mounted_secret_is_a_link(
    signed: Bundle, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "mounted.pub").symlink_to(keys[1])
    assert check_signature(signed, tmp_path / "mounted.pub").version == 3


def test_a_link_beside_the_bundle_is_not_written_through(
    bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever knows the name that is written aside can put a link there first."""
    (tmp_path / "victim").write_bytes(b"precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    for name in (f".{bundle.root.name}.signature-{os.getpid()}", ".partial-tiny-guessed"):
        bundle.root.with_name(name).symlink_to(tmp_path / "victim")
    with pytest.raises(BundleError, match="could not write"):
        sign(bundle.root, keys[0], version=9)
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_full_disk_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileWriteError, match=r"could not write .*: No space left"):
        keygen(tmp_path / "ours")
    assert list(tmp_path.iterdir()) == []


def test_an_encrypted_key_needs_its_passphrase(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    private, public = keygen(tmp_path / "k")
    assert b"ENCRYPTED" in private.read_bytes()
    sign(bundle.root, private, version=9)
    check_signature(Bundle.open(bundle.root), public)
    monkeypatch.setenv(PASSPHRASE, "battery staple")
    with pytest.raises(FileReadError, match=f"or {PASSPHRASE} is wrong"):
        sign(bundle.root, private, version=9)
    monkeypatch.delenv(PASSPHRASE)
    with pytest.raises(FileReadError, match=f"Set {PASSPHRASE}"):
        sign(bundle.root, private, version=9)


def test_the_command_line_signs_and_verifies(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, root = str(tmp_path / "k"), str(bundle.root)
    assert main(["keygen", name]) == 0
    assert "keep it secret" in capsys.readouterr().out
    assert main(["verify", root]) == 0
    assert "not signed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["sign", root, "--key", f"{name}.key"])
    assert "--version" in capsys.readouterr().err
    assert main(["sign", root, "--key", f"{name}.key", "--version", "7"]) == 0
    assert "version 7, signed by key" in capsys.readouterr().out
    assert main(["verify", root]) == 0
    assert "version 7 by key" in (told := capsys.readouterr().out)
    assert "NOT CHECKED: give --key" in told
    assert main(["verify", root, "--key", f"{name}.pub", "--minimum-version", "7"]) == 0
    assert "version 7, signed by key" in capsys.readouterr().out
    assert main(["verify", root, "--key", f"{name}.pub", "--minimum-version", "8"]) == 1
    assert "below the minimum 8" in capsys.readouterr().err
    assert main(["verify", root, "--minimum-version", "8"]) == 2
    assert "proves nothing without a key" in capsys.readouterr().err
    (bundle.root / SIGNATURE).unlink()
    assert main(["verify", root, "--key", f"{name}.pub"]) == 1
    assert "is not signed" in capsys.readouterr().err


def test_a_signature_that_cannot_be_written_leaves_nothing(
    bundle: Bundle, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(BundleError, match="No space left"):
        sign(bundle.root, keys[0], version=9)
    monkeypatch.undo()
    assert sorted(p.name for p in bundle.root.parent.iterdir()) == [bundle.root.name]
    assert Manifest.from_json((bundle.root / "manifest.json").read_text()) == bundle.manifest
