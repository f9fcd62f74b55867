"""How many frames and types are on a request's path from its body to the network?

Sends one `POST /recommend/sequential` through the app in this process, and counts the project's own code: the frames
from the route to the queue on the event loop, those from the lane's thread to the network, and the types that are
instantiated for the request. Types that the search instantiates in each step are counted separately.

    python -m benchmarks.request_path [--bundle demo/bundle] [--engine torch]

Prints the frames and the types; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType

import httpx

from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.settings import Settings

ROOT = Path(__file__).parents[1]
PACKAGES = ("service.", "model.", "feature_cache.")
HOMES = [ROOT / package.rstrip(".") for package in PACKAGES]
OF_THE_SEARCH = ("model.decoding.items._", "model.decoding.items.ItemBeams", "model.decoding.beams.Selection")
BODY = {
    "domain": "garments",
    "user_id": "user-30001",
    "k": 2,
    "history": ["garment-0024", "garment-0216", "garment-0017"],
}
# Functions, by file, at whose first call the stack is recorded.
LANDMARKS = {
    ("service/http/routes/recommend.py", "recommend_sequential"): "route",
    ("service/batching/queue.py", "put"): "queue",
    ("model/network/network.py", "step"): "network",
    ("model/engine/onnx/executor.py", "step"): "network",
}


@dataclass
class RequestPath:
    """The recorded frames and types."""

    is_watched: bool = False
    before: set[int] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    stacks: dict[str, list[str]] = field(default_factory=dict)

    def watch(self, frame: FrameType, event: str, argument: object) -> None:
        """A profile function for sys.setprofile."""
        if not self.is_watched or event not in ("call", "return"):
            return
        place = _place(frame.f_code)
        if place is None:
            return
        name = LANDMARKS.get((place, frame.f_code.co_name))
        if event == "call" and name is not None:
            self.stacks.setdefault(name, _stack(frame))
        for value in (*frame.f_locals.values(), argument):
            self._note(value)

    def _note(self, value: object, depth: int = 2) -> None:
        kind = type(value)
        if kind.__module__.startswith(PACKAGES) and id(value) not in self.before and not isinstance(value, Exception):
            self.types.add(f"{kind.__module__}.{kind.__qualname__}")
        if depth and isinstance(value, list | tuple | dict):
            inner: Sequence[object] = list(value.values()) if isinstance(value, dict) else value
            for each in inner[:3]:
                self._note(each, depth - 1)


def _place(code: CodeType) -> str | None:
    path = Path(code.co_filename)
    return str(path.relative_to(ROOT)) if any(map(path.is_relative_to, HOMES)) else None


def _stack(frame: FrameType | None) -> list[str]:
    """The project's frames, outermost first."""
    stack: list[str] = []
    while frame is not None:
        if (place := _place(frame.f_code)) is not None:
            stack.append(f"{place}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    return stack[::-1]


async def follow(settings: Settings, path: RequestPath) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        while state_of(app).readiness.reasons():  # noqa: ASYNC110  # the app provides no event to wait for
            await asyncio.sleep(0.01)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            await client.post("/recommend/sequential", json=BODY)
            gc.collect()
            known = gc.get_objects()
            path.before = set(map(id, known))
            path.is_watched = True
            answer = await client.post("/recommend/sequential", json=BODY)
            path.is_watched = False
            answer.raise_for_status()


def report(path: RequestPath) -> Mapping[str, int]:
    # The route runs its work in a separate task, whose stack starts below the route.
    frames = [path.stacks["route"][-1], *path.stacks["queue"], *path.stacks["network"]]
    of_the_search = sorted(each for each in path.types if each.startswith(OF_THE_SEARCH))
    types = sorted(path.types - set(of_the_search))
    for title, lines in (("frames", frames), ("types", types), ("types of the search", of_the_search)):
        print(f"{len(lines)} {title}", *lines, sep="\n    ")
    return {"frames": len(frames), "types": len(types), "types_of_the_search": len(of_the_search)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "demo" / "bundle")
    parser.add_argument("--engine", default="torch")
    options = parser.parse_args()
    path = RequestPath()
    threading.setprofile(path.watch)
    sys.setprofile(path.watch)
    asyncio.run(follow(Settings(bundle=options.bundle, engine=options.engine), path))
    sys.setprofile(None)
    print(json.dumps(report(path)))


if __name__ == "__main__":
    main()
