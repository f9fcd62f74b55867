"""Builds images without a daemon: buildah in a chroot, on a base image made of Debian's packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.unit.deploy.containers import ROOT, is_let_in

TOOLS = ("buildah", "runc", "mmdebstrap")
SUITE = "bookworm"
BASE = "localhost/vip5-base"
UNUSED = (
    "usr/share/locale",
    "usr/share/man",
    "usr/share/doc",
    "var/lib/apt/lists",
    "usr/lib/python3.11/EXTERNALLY-MANAGED",
)
"""Left out of the base image, as they are of Docker's official images."""


def missing() -> str | None:
    """Why no image can be built here; None if one can."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"{', '.join(lacking)} is not installed; try: apt-get install {' '.join(TOOLS)}"
    if os.geteuid() != 0:
        return "root is needed to make the base image and to mount images"
    return None


@dataclass(frozen=True)
class Layer:
    """One layer in bytes, not compressed, which takes longer than the rest; a registry stores about a third."""

    digest: str
    size: int


class Store:
    """Images below one folder, apart from those of the machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))

    def buildah(self, *command: str) -> str:
        environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}
        full = ["buildah", *self._options, *command]
        return subprocess.run(full, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def has(self, image: str) -> bool:
        return bool(self.buildah("images", "--quiet", "--filter", f"reference={image}"))

    def make_base(self) -> None:
        """A stand-in for Docker's official Python image, which has the same `python` and `pip`."""
        root = self._folder / "base"
        shutil.rmtree(root, ignore_errors=True)
        packages = "python3,python-is-python3,python3-pip,python3-venv,ca-certificates"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", SUITE, str(root)]
        subprocess.run(command, stdout=sys.stderr, check=True)
        for path in UNUSED:
            subprocess.run(["rm", "-r", root / path], check=True)
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, str(root), "/")
        self.buildah("commit", "--quiet", "--format", "docker", container, BASE)
        self.buildah("rm", container)
        shutil.rmtree(root)

    def build(self, context: Path, target: str, options: list[str]) -> str:
        """The name of the image that was built; `options` are further ones for buildah."""
        name = f"localhost/vip5-serve:{target}"
        given = [
            "--quiet",
            "--layers",
            "--format",
            "docker",
            "--target",
            target,
            "--build-arg",
            f"PYTHON_IMAGE={BASE}",
            "--tag",
            name,
        ]
        self.buildah("build", *given, *options, str(context))
        return name

    def layers(self, image: str) -> list[Layer]:
        """The layers, that of the base image first."""
        folder = self._folder / "pushed"
        shutil.rmtree(folder, ignore_errors=True)
        self.buildah("push", "--quiet", "--disable-compression", image, f"dir:{folder}")
        manifest = json.loads((folder / "manifest.json").read_text())
        return [Layer(each["digest"], each["size"]) for each in manifest["layers"]]

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The image's files."""
        container = self.buildah("from", "--pull-never", image)
        try:
            yield Path(self.buildah("mount", container))
        finally:
            self.buildah("rm", container)


def checkout(folder: Path) -> None:
    """The files that .dockerignore lets in, as a checkout under umask 077 leaves them."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in ["Dockerfile", ".dockerignore", *filter(is_let_in, listed.splitlines())]:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        target.chmod(0o600)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o700)


def change_of_code(context: Path) -> None:
    """A line more in a source file."""
    with (context / "service/__init__.py").open("a") as file:
        file.write("# changed\n")
