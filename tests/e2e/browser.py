"""The system's Chromium, and what a page did in it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest

# Types of a library that may be missing.
Browser: TypeAlias = Any
Dialog: TypeAlias = Any
Locator: TypeAlias = Any
Message: TypeAlias = Any
Page: TypeAlias = Any
Request: TypeAlias = Any

PATIENCE_MS = 60_000
SERIOUS = {"serious", "critical"}


@dataclass
class Visit:
    """An open page. `faults` are errors in the console, and requests that failed or left the service."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests for recommendations."""
    paths: list[str] = field(default_factory=list)
    """Paths of all requests, in their order."""

    def open(self, path: str = "") -> None:
        self.page.goto(f"{self.url}/{path}")

    def wait(self, selector: str) -> Locator:
        """The first element that matches, once it is visible."""
        found = self.page.locator(selector).first
        found.wait_for()
        return found

    def until(self, expression: str) -> None:
        """Wait until JavaScript is true. Playwright's own way needs eval, which the page's policy forbids."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            self.page.wait_for_timeout(20)

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.page.locator(selector).all_inner_texts()
        return found

    @property
    def recommended(self) -> list[str]:
        """Ids of the items that are shown, once the answer is there."""
        self.page.wait_for_selector("#answers[aria-busy=false]")
        self.wait(".card")
        return [each.get_attribute("data-id") for each in self.page.locator(".card").all()]

    def note_message(self, message: Message) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def note_dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def note_request(self, request: Request) -> None:
        self.paths.append(urlsplit(request.url).path)
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc and not request.url.startswith(("blob:", "data:")):
            self.faults.append(f"a request to {request.url}")
        if request.url.endswith("/recommend/sequential"):
            self.bodies.append(request.post_data_json)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips where there is none."""
    library = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; install the extra dev")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine; make servers installs it")
    with library.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Browser, url: str, **options: object) -> Iterator[Visit]:
    """A page in a context of its own, which must have no faults in the end. `options` are those of the context."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(context.new_page(), url)
    page = visit.page
    page.on("console", visit.note_message)
    page.on("pageerror", lambda error: visit.faults.append(str(error)))
    page.on("request", visit.note_request)
    page.on("dialog", visit.note_dialog)
    yield visit
    faults = list(visit.faults)
    context.close()
    assert faults == []
