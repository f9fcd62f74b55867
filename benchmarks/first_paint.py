"""How soon does a visitor of the page see recommendations?

Question  How long does it take from the navigation until the pictures of the recommended items are painted, and where
          does the time go?
Method    `vip5 serve` with the demonstration, in its own process, with one thread for the engine. Headless Chromium
          opens an address that has a history in it, each time with an empty cache; the first loads warm the service up
          and do not count. Times come from the page's own clock, whose zero is the start of the navigation. Pictures
          count as painted two frames after all recommended ones on the screen have been decoded. Processor time of the
          service and of the browser's processes up to then depends less on what else the machine does. A baseline is
          the service of another checkout, whose loads take turns with these.
Output    Medians of the moments at which each step ended, and of processor time; the last line is JSON.

    python -m benchmarks.first_paint [--loads 15] [--bundle demo/bundle] [--baseline CHECKOUT]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

import psutil  # type: ignore[import-untyped]  # its types are a package of their own
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.cpu_engine import ROOT
from tests.e2e.processes import COMMAND, Server, serving

ADDRESS = "?domain=toys&user=user-30001&history=toy-0152&history=toy-0098&history=toy-0025"
NUM_WARM_UP = 3
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

WATCH = """
(() => {
  const isOnScreen = (each) => {
    const { top, bottom } = each.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  };
  const frame = () => new Promise(requestAnimationFrame);
  const shown = () => new Promise((resolve) => {
    const isShown = () => document.querySelector(".card") && (watcher.disconnect(), resolve());
    const watcher = new MutationObserver(isShown);
    watcher.observe(document.getElementById("answers"), { childList: true });
    isShown();
  });
  addEventListener("DOMContentLoaded", async () => {
    await shown();
    window.cardsAt = performance.now();
    const pictures = [...document.querySelectorAll(".card .picture img")].filter(isOnScreen);
    await Promise.all(pictures.map((each) => each.decode()));
    await frame();
    await frame();
    window.paintedAt = performance.now();
    window.numPainted = pictures.length;
  });
})()
"""
"""Runs in the page before its own scripts."""

STEPS = """
(() => {
  const [navigation] = performance.getEntriesByType("navigation");
  const loads = performance.getEntriesByType("resource");
  const named = (part) => loads.filter((each) => each.name.includes(part));
  const last = (entries) => Math.max(0, ...entries.map((each) => each.responseEnd));
  const recommended = named("/recommend/sequential")[0];
  const before = loads.filter((each) => each.startTime < recommended.startTime);
  return {
    html: navigation.responseEnd,
    modules: last(named(".js").filter((each) => each.startTime < window.cardsAt)),
    domains: last(named("/domains").filter((each) => each.name.endsWith("/domains"))),
    asked: recommended.startTime,
    answered: recommended.responseEnd,
    cards: window.cardsAt,
    images: last(loads.filter((each) => each.name.includes("/image") && each.startTime < window.paintedAt)),
    painted: window.paintedAt,
    requests_before: before.length,
    pictures: window.numPainted,
  };
})()
"""


def cpu_ms(process: psutil.Process) -> dict[int, float]:
    """Processor time of a process and of all below it."""
    times = {}
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = each.cpu_times()
            times[each.pid] = (spent.user + spent.system) * 1000
    return times


def spent_ms(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(time_ms - before.get(pid, 0.0) for pid, time_ms in after.items())


def load(browser: Browser, url: str, service: psutil.Process, driver: psutil.Process) -> dict[str, float]:
    """Milliseconds from the start of the navigation to the end of each step, in a new context, and processor time."""
    context = browser.new_context()
    page: Page = context.new_page()
    page.add_init_script(WATCH)
    before = cpu_ms(service), cpu_ms(driver)
    page.goto(url, wait_until="commit")
    while page.evaluate("window.paintedAt") is None:
        page.wait_for_timeout(100)
    after = cpu_ms(service), cpu_ms(driver)
    steps: dict[str, float] = page.evaluate(STEPS)
    context.close()
    return steps | {"service_cpu": spent_ms(before[0], after[0]), "browser_cpu": spent_ms(before[1], after[1])}


def measure(checkouts: Mapping[str, Path], bundle: Path, num_loads: int) -> dict[str, list[dict[str, float]]]:
    """The loads of each checkout's service, taking turns; those that warm up are left out."""
    path = next(found for name in BROWSERS if (found := shutil.which(name)))
    loads: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(serving_of(checkout, bundle)) for name, checkout in checkouts.items()}
        services = {name: psutil.Process(server.process.pid) for name, server in servers.items()}
        playwright = stack.enter_context(sync_playwright())
        (driver,) = (each for each in psutil.Process().children() if each not in services.values())
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for number in range(NUM_WARM_UP + num_loads):
            for name in list(servers)[:: 1 if number % 2 else -1]:
                loads[name].append(load(browser, f"{servers[name].url}/{ADDRESS}", services[name], driver))
        browser.close()
    return {name: each[NUM_WARM_UP:] for name, each in loads.items()}


def serving_of(checkout: Path, bundle: Path) -> AbstractContextManager[Server]:
    """The service of a checkout, whatever the working directory."""
    python, *command = COMMAND
    return serving(bundle, {"PYTHONPATH": str(checkout)}, (python, "-P", *command))


def show(loads: Mapping[str, list[dict[str, float]]]) -> None:
    medians = {
        name: {step: median(each[step] for each in of_one) for step in of_one[0]} for name, of_one in loads.items()
    }
    painted = {name: sorted(round(each["painted"]) for each in of_one) for name, of_one in loads.items()}
    print(f"{'':16}" + "".join(f"{name:>10}" for name in medians))
    for step in next(iter(medians.values())):
        print(f"{step:16}" + "".join(f"{each[step]:10.0f}" for each in medians.values()))
    busy = os.getloadavg()[0]
    for name, moments in painted.items():
        spread = f"{moments[0]} to {moments[-1]} ms"
        print(f"{name}: painted after {medians[name]['painted']:.0f} ms in the median, {spread}, {len(moments)} loads")
    print(f"load average {busy:.1f}")
    print(json.dumps({"medians": medians, "painted": painted, "load": busy}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=15)
    parser.add_argument("--bundle", type=Path, default=ROOT / "demo" / "bundle")
    parser.add_argument("--baseline", type=Path, help="another checkout, whose service is measured in turns")
    given = parser.parse_args()
    checkouts = {"now": ROOT} | ({"baseline": given.baseline.resolve()} if given.baseline else {})
    show(measure(checkouts, given.bundle, given.loads))


if __name__ == "__main__":
    main()
