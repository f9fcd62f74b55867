"""A bundle is trusted by the signature of its manifest alone, and every other file beside it is refused."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model.bundle import signatures
from model.bundle.bundle import open_bundle
from model.bundle.layout import SIGNATURES
from model.bundle.manifest import verify_files, write_manifest
from model.bundle.signatures import TrustedKeys, sign_bundle
from model.bundle.signing_keys import id_of, make_key, read_private_key, read_public_keys
from model.bundle.verified_files import VerifiedFiles
from model.bundle.writer import BundleWriter
from tests.signing import key_pair, signed
from tests.tiny import tiny_bundle
from tests.unit.bundle.refusals import refused


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("original"), num_items=20)


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "shop"))


def sealed(key: Path, message: bytes) -> bytes:
    return read_private_key(key).sign(message)


def listed(root: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((root / SIGNATURES).read_text())["signatures"]
    return found


def test_a_signed_bundle_is_opened_with_its_key(root: Path, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    signed(root, private)
    bundle = open_bundle(root, TrustedKeys(public))
    assert bundle.hash == open_bundle(root).hash == verify_files(root).hash
    assert SIGNATURES in [seal.path for files in bundle.domains.values() for seal in files.seals]


def test_an_unsigned_bundle_is_refused_before_anything_else_is_read(root: Path, tmp_path: Path) -> None:
    _, public = key_pair(tmp_path)
    (root / "backbone" / "model.safetensors").write_bytes(b"anything")
    with refused("untrusted_bundle", "shop is not signed: it has no manifest.json.sig; do not trust its source"):
        VerifiedFiles(root, TrustedKeys(public))


def test_another_key_is_named_beside_those_that_are_trusted(root: Path, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    other, other_public = key_pair(tmp_path, "other")
    signed(root, other)
    (stranger,), (trusted,) = read_public_keys(other_public), read_public_keys(public)
    with refused("untrusted_bundle", f"shop is signed by the keys {stranger}, but trusted are only {trusted}"):
        VerifiedFiles(root, TrustedKeys(public))
    VerifiedFiles(signed(root, private), TrustedKeys(public))


def tampered(root: Path, _: Path) -> None:
    path = root / "domains/toys/catalog.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    kept = (root / SIGNATURES).read_bytes()
    write_manifest(root)
    (root / SIGNATURES).write_bytes(kept)


def same_content_in_other_bytes(root: Path, _: Path) -> None:
    path = root / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")


def of_another_bundle(root: Path, key: Path) -> None:
    other = Path(shutil.copytree(root, root.parent / "other"))
    (other / "domains/toys/users.parquet").unlink()
    write_manifest(other)
    signed(other, key)
    shutil.copyfile(other / SIGNATURES, root / SIGNATURES)


def with_signature(change: Callable[[str], str]) -> Callable[[Path, Path], None]:
    def damage(root: Path, _: Path) -> None:
        changed = {key: change(text) for key, text in listed(root).items()}
        (root / SIGNATURES).write_text(json.dumps({"format_version": 1, "signatures": changed}))

    return damage


def of_the_bare_manifest(root: Path, key: Path) -> None:
    """A key that also signs other files must not vouch for a bundle by that."""
    import base64

    text = base64.b64encode(sealed(key, (root / "manifest.json").read_bytes())).decode()
    with_signature(lambda _: text)(root, key)


@pytest.mark.parametrize(
    "damage",
    [
        tampered,
        same_content_in_other_bytes,
        of_another_bundle,
        of_the_bare_manifest,
        with_signature(lambda text: text[:40]),
        with_signature(lambda text: ""),
        with_signature(lambda text: "A" * len(text[:-2]) + "=="),
    ],
)
def test_a_signature_of_anything_else_is_refused(
    root: Path, tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    private, public = key_pair(tmp_path)
    signed(root, private)
    damage(root, private)
    with refused("untrusted_bundle", "manifest.json.sig is not the signature of this manifest.json"):
        VerifiedFiles(root, TrustedKeys(public))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"[]", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"{}", "is damaged"),
        (b'{"format_version": 1, "signatures": []}', "is damaged"),
        (b'{"format_version": 1, "signatures": {"a": 5}}', "is damaged"),
        (b'{"format_version": 1, "signatures": {"a": "\xc3\xa9"}}', "is damaged"),
        (b'{"format_version": 2, "signatures": {}}', "has the format_version 2, but this program reads 1"),
        (b'{"format_version": 1, "signatures": {}}', "is signed by the keys none, but trusted are only "),
        (b" " * 200_001, "has 200001 bytes, the limit is 200000"),
    ],
)
def test_a_damaged_file_of_signatures_is_refused(
    root: Path, tmp_path: Path, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "MOST_BYTES", 200_000)
    _, public = key_pair(tmp_path)
    (root / SIGNATURES).write_bytes(content)
    with refused("untrusted_bundle", message):
        VerifiedFiles(root, TrustedKeys(public))


def test_a_truncated_file_of_signatures_is_refused_wherever_it_ends(root: Path, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    content = (signed(root, private) / SIGNATURES).read_bytes()
    for length in range(len(content) - 2):
        (root / SIGNATURES).write_bytes(content[:length])
        with refused("untrusted_bundle", "shop: manifest.json.sig is damaged"):
            VerifiedFiles(root, TrustedKeys(public))


def test_a_folder_in_the_place_of_signatures_is_refused(root: Path, tmp_path: Path) -> None:
    _, public = key_pair(tmp_path)
    (root / SIGNATURES).mkdir()
    with refused("untrusted_bundle", "manifest.json.sig cannot be read"):
        VerifiedFiles(root, TrustedKeys(public))


def test_keys_are_rotated_by_two_signatures_and_two_keys(root: Path, tmp_path: Path) -> None:
    (old, old_public), (new, new_public) = key_pair(tmp_path, "old"), key_pair(tmp_path, "new")
    signed(root, old, new, new)
    assert len(listed(root)) == 2
    both = tmp_path / "both.pem"
    both.write_text(f"# old\n{old_public.read_text()}\n# new\n{new_public.read_text()}", encoding="utf-8")
    for keys in (old_public, new_public, both):
        VerifiedFiles(root, TrustedKeys(keys))
    (root / SIGNATURES).unlink()
    VerifiedFiles(signed(root, new), TrustedKeys(both))
    with refused("untrusted_bundle", "but trusted are only"):
        VerifiedFiles(root, TrustedKeys(old_public))


def test_one_damaged_signature_does_not_spoil_another(root: Path, tmp_path: Path) -> None:
    (old, old_public), (new, new_public) = key_pair(tmp_path, "old"), key_pair(tmp_path, "new")
    signed(root, old, new)
    (name,) = read_public_keys(old_public)
    broken = listed(root) | {name: "AAAA"}
    (root / SIGNATURES).write_text(json.dumps({"format_version": 1, "signatures": broken}))
    both = tmp_path / "both.pem"
    both.write_text(old_public.read_text() + new_public.read_text(), encoding="utf-8")
    VerifiedFiles(root, TrustedKeys(both))


def test_a_key_that_is_removed_is_trusted_no_more(root: Path, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    _, other = key_pair(tmp_path, "other")
    signed(root, private)
    trusted = TrustedKeys(public)
    VerifiedFiles(root, trusted)
    shutil.copyfile(other, public)
    with refused("untrusted_bundle", "but trusted are only"):
        VerifiedFiles(root, trusted)


def pem_of_another_kind() -> bytes:
    key = generate_private_key(SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pem: b"", "has no public key"),
        (lambda pem: b"# none yet\n", "has no public key"),
        (lambda pem: pem[:-5], "has a part that is no public key"),
        (lambda pem: pem + pem[3:], "has a part that is no public key"),
        (lambda pem: pem + b"\xff\xfe", "has a part that is no public key"),
        (lambda pem: pem.replace(b"MCow", b"MCox"), "key 1 cannot be read"),
        (lambda pem: pem + pem_of_another_kind(), "key 2 is not Ed25519"),
        (lambda pem: b"#" * (1 << 20) + b"\n" + pem, "has more than 1048576 bytes"),
    ],
)
def test_a_broken_file_of_keys_trusts_nobody(
    root: Path, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    private, public = key_pair(tmp_path)
    signed(root, private)
    public.write_bytes(change(public.read_bytes()))
    with refused("untrusted_bundle", message):
        VerifiedFiles(root, TrustedKeys(public))
    with refused("invalid_signing_key", message):
        read_public_keys(public)


def test_a_missing_file_of_keys_trusts_nobody(root: Path, tmp_path: Path) -> None:
    with refused("untrusted_bundle", "nothing.pem cannot be read: No such file or directory"):
        VerifiedFiles(signed(root, key_pair(tmp_path)[0]), TrustedKeys(tmp_path / "nothing.pem"))


def test_a_private_key_does_not_belong_to_a_service(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    with refused("invalid_signing_key", "has a private key; keep that where bundles are signed"):
        read_public_keys(private)
    with refused("invalid_signing_key", "is not a private key in PEM"):
        read_private_key(public)


def test_only_an_ed25519_key_without_a_password_signs(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"word"))
    )
    with refused("invalid_signing_key", "is not a private key in PEM without a password"):
        sign_bundle(root, path)
    path.write_bytes(generate_private_key(SECP256R1()).private_bytes(pem, pkcs8, serialization.NoEncryption()))
    with refused("invalid_signing_key", "is not an Ed25519 key"):
        sign_bundle(root, path)
    assert not (root / SIGNATURES).exists()


def test_only_the_owner_can_read_a_new_key_and_no_file_is_overwritten(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert [id_of(read_private_key(private).public_key())] == list(read_public_keys(public))
    before = private.read_bytes()
    with refused("invalid_bundle", "exists already, and a key that is overwritten is lost"):
        make_key(private)
    assert private.read_bytes() == before


def test_a_bundle_with_a_changed_file_is_not_signed(root: Path, tmp_path: Path) -> None:
    private, _ = key_pair(tmp_path)
    path = root / "domains/toys/catalog.parquet"
    path.write_bytes(bytes(path.stat().st_size))
    with refused("bundle_integrity", "catalog.parquet was modified"):
        sign_bundle(root, private)
    assert not (root / SIGNATURES).exists()


def test_an_addition_to_a_signed_bundle_removes_its_signatures(root: Path, tmp_path: Path) -> None:
    signed(root, key_pair(tmp_path)[0])
    with BundleWriter(root) as writer:
        writer.seal()
    assert not (root / SIGNATURES).exists()
    open_bundle(root)


def test_bundles_are_opened_without_cryptography() -> None:
    program = "import sys; sys.modules['cryptography'] = None; import model.bundle.bundle, model.planning.runtime"
    subprocess.run([sys.executable, "-c", program], check=True)
