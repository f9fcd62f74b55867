"""Builds images, starts them confined, asks, stops and measures them: python -m tests.images [--targets cpu ray cuda].

That for GPUs is only built and measured, in as far as its packages can be had.

Prints a table, and its figures as a line of JSON. Skips with the reason where images cannot be built.
Exits with 1 if a check fails or a target is missed: 1.2 GB in all, 20 MB for a change of code, 5 s to ready.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests.images.building import BASE, Store, change_of_code, checkout, missing
from tests.images.ray import try_ray
from tests.images.running import running
from tests.redis_servers import HOST, free_port
from tests.unit.deploy.containers import ROOT

TARGETS = ("cpu", "ray", "cuda")
LIMITS = {"image_mb": 1200.0, "change_mb": 20.0, "ready_s": 5.0}
NOT_AT_RUN_TIME = ("pip", "apt-get", "apt", "gcc")


def try_out(files: Path, folder: Path) -> dict[str, float]:
    """Start the image's files, use the service, and stop it. Seconds that it took to be ready."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    with running(files, "cpu", folder, {"VIP5_HOST": HOST, "VIP5_PORT": str(port)}) as container:
        ready_s = container.wait_ready(url)
        asked = json.loads((ROOT / "demo/bundle-requests.jsonl").read_text().splitlines()[0])
        answer = httpx.post(f"{url}/recommend/{asked.pop('task')}", json=asked, timeout=30)
        assert len(answer.json()["items"]) == 10, answer.text
        probe = container.execute("python", "-m", "service.observability.probe")
        assert probe.returncode == 0, probe.stderr
        status = container.execute("cat", "/proc/self/status").stdout
        assert "CapEff:\t0000000000000000" in status
        assert "CapBnd:\t0000000000000000" in status
        assert "Uid:\t10001" in status
        for path in ("/srv/x", "/opt/vip5/x", "/x"):
            assert "Read-only file system" in container.execute("touch", path).stderr
        for command in NOT_AT_RUN_TIME:
            assert container.execute("sh", "-c", f"command -v {command}").returncode == 127, command
        assert container.execute("python", "-c", "import pip").returncode == 1
        code = container.stop()
    assert code == 0, f"the service ended with status {code}"
    assert not [line for line in container.lines if line.get("level") in {"ERROR", "CRITICAL"}]
    return {"ready_s": round(ready_s, 2)}


def size_mb(files: Path) -> float:
    """What the image takes unpacked."""
    told = subprocess.run(["du", "-s", "--block-size=1", files], stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(told.split()[0]) / 1e6


def measure(store: Store, folder: Path, options: list[str], targets: Sequence[str]) -> dict[str, float]:
    context = folder / "context"
    checkout(context)
    found: dict[str, float] = {}
    if "cpu" in targets:
        found |= _measure_cpu(store, folder, options)
        checkout(context)
    if "ray" in targets:
        image = store.build(context, "ray", options)
        with store.mounted(image) as files:
            found |= {"ray_image_mb": round(size_mb(files), 1)}
            found |= try_ray(files, folder / "ray")
    if "cuda" in targets:
        with store.mounted(store.build(context, "cuda", options)) as files:
            found |= {"cuda_image_mb": round(size_mb(files), 1)}
    return found


def _measure_cpu(store: Store, folder: Path, options: list[str]) -> dict[str, float]:
    context = folder / "context"
    image = store.build(context, "cpu", options)
    before = store.layers(image)
    with store.mounted(image) as files:
        found = {"image_mb": round(size_mb(files), 1), "base_mb": round(before[0].size / 1e6, 1)}
        found |= try_out(files, folder / "container")
    change_of_code(context)
    known = {each.digest for each in before}
    new = [each for each in store.layers(store.build(context, "cpu", options)) if each.digest not in known]
    assert new, "the change is not in the image"
    return found | {"change_mb": round(sum(each.size for each in new) / 1e6, 2), "changed_layers": len(new)}


def report(found: Mapping[str, float]) -> bool:
    """Print the figures, and say whether all are within their limits."""
    for name, value in found.items():
        print(f"{name:<16}{value:>10}" + (f"   at most {LIMITS[name]:g}" if name in LIMITS else ""))
    print(json.dumps(dict(found)))
    return all(found[name] <= limit for name, limit in LIMITS.items() if name in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=ROOT / "build/images", help="folder of the images, which is kept")
    parser.add_argument("--targets", nargs="*", choices=TARGETS, default=["cpu", "ray"], help="(default: cpu ray)")
    parser.add_argument("options", nargs="*", help="options of `buildah build`, after --")
    given = parser.parse_args()
    reason = missing()
    if reason is not None:
        print(f"skipped: {reason}")
        return
    store = Store(given.store)
    if not store.has(BASE):
        store.make_base()
    with tempfile.TemporaryDirectory(prefix="vip5-image-") as folder:
        found = measure(store, Path(folder), given.options, given.targets)
    sys.exit(not report(found))


if __name__ == "__main__":
    main()
