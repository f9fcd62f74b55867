"""Domains that are given wrongly stop no others."""

from __future__ import annotations

from pathlib import Path

from model.bundle.manifest import read_manifest
from service.ray.directory import Directory, directory_of
from service.versions.state import VersionRef
from tests.tiny import tiny_bundle

HASH = "ab" * 32


def test_domains_are_found_in_the_own_bundle_the_store_and_folders(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, num_items=20)
    given = {"own": {}, "stored": {"bundle": HASH, "domain": "toys"}, "toys": {"bundle": "bundle"}}
    found = directory_of(given, "own hash", tmp_path, Directory())
    assert found.problems == {}
    assert found.versions == {
        "own": VersionRef("", "own hash", "own"),
        "stored": VersionRef(HASH, HASH, "toys"),
        "toys": VersionRef("bundle", read_manifest(bundle).hash, "toys"),
    }


def test_a_mistake_is_told_and_what_was_served_goes_on(tmp_path: Path) -> None:
    before = Directory({"a": VersionRef("", "h", "a")})
    given = {"a": {"bundle": "nowhere"}, "b": {"bundel": HASH}, "c": {}}
    found = directory_of(given, "h", tmp_path, before)
    assert found.versions == {"a": VersionRef("", "h", "a"), "c": VersionRef("", "h", "c")}
    assert "there is no bundle 'nowhere'" in found.problems["a"]
    assert "bundel" in found.problems["b"]
