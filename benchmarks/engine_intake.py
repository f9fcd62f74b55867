"""How much of its event loop does the engine process need for a worker's request, by requests in a wake-up?

Question  CPU time of intake and reply alone: from the bytes of `Submit` to a job in the lane, and from its result to
          the bytes of `Ranked`, without workers, HTTP or a network.
Method    A process that plays a worker sends frames of so many searches, each with a prompt of a Toys history and its
          embeddings, and the next frame when all are answered. Here, the lanes and the channel of an engine process
          take them, with an engine that answers at once. CPU times are the kernel's, of the event loop's thread and of
          all others'. The numbers of requests take turns.
Output    For each number of requests in a wake-up, medians and least values over rounds of CPU microseconds per
          request. The last line is JSON.

    python -m benchmarks.engine_intake [--sizes 1 4 16 32 64] [--requests 1024] [--rounds 20] [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks.hot_path import ROOT
from benchmarks.hot_path_servers import DOMAIN, instant_engine, requests_of, write_bundle
from service.answering.service import load
from service.batching.lanes import Lanes
from service.channel.channel import LENGTH, Channel
from service.channel.messages import FromEngine, FromWorker, Ranked, Submit
from service.channel.plans import PlanWriter
from service.http.app import create_app
from service.http.app_state import state_of
from service.http.interpreter import freeze_heap, tune_interpreter
from service.processes.engine_jobs import EngineJobs
from service.schemas.ranking import SequentialRequest
from service.settings.settings import Settings
from service.versions.domain_version import DomainVersion

VERSION = 1
NUM_PLANS = 256


@dataclass
class Round:
    """CPU microseconds per request."""

    loop_us: float
    others_us: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16, 32, 64])
    parser.add_argument("--requests", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--play", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play is not None:
        play_worker(socket.socket(fileno=options.play))
        return 0
    tune_interpreter()
    rounds = uvloop.run(measure_all(options))
    found = {
        str(size): {
            "loop_us": round(statistics.median(each.loop_us for each in own), 1),
            "least_loop_us": round(min(each.loop_us for each in own), 1),
            "others_us": round(statistics.median(each.others_us for each in own), 1),
        }
        for size, own in rounds.items()
    }
    for size, figures in found.items():
        print(f"{size:>4} in a wake-up", *(f"{name} {value:7.1f}" for name, value in figures.items()))
    print(json.dumps({"benchmark": "engine_intake", "requests": options.requests, "rounds": options.rounds, **found}))
    return 0


async def measure_all(options: argparse.Namespace) -> dict[int, list[Round]]:
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        requests = requests_of(write_bundle(bundle, options.data))
        app = create_app(Settings(bundle=bundle, port=0, engine="torch"), loader=_load)
        freeze_heap()
        state = state_of(app)
        async with app.router.lifespan_context(app):
            while state.readiness.reasons():  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.05)
            lease = state.service.domains.lease(DOMAIN, "", is_ranking=True, holder="benchmark", role=None)
            lanes = state.service.lanes
            assert isinstance(lanes, Lanes)
            with lease as _:
                plans = await _plans(lease.version, requests)
                return await _measured(lanes, lease.version, plans, options)


def _load(settings: Settings) -> Any:  # noqa: ANN401  # of hot_path's engine
    runtime = load(settings)
    return replace(runtime, engine=instant_engine(runtime.domains[DOMAIN].trie.num_leaves))


async def _plans(version: DomainVersion, requests: list[bytes]) -> list[Submit]:
    """What a worker would send for these requests."""
    from model.planning.rankings import plan_sequential  # noqa: PLC0415
    from service.answering.image_features import fetch_features  # noqa: PLC0415

    writer, found = PlanWriter(), []
    for number, request in enumerate(requests[:NUM_PLANS]):
        body = SequentialRequest.model_validate_json(request.partition(b"\r\n\r\n")[2])
        plan = await fetch_features(version, plan_sequential(version.domain, body))
        found.append(Submit(number, writer.write(plan, VERSION), math.inf, "", 1.0, streams=False))
    return found


async def _measured(
    lanes: Lanes, version: DomainVersion, plans: list[Submit], options: argparse.Namespace
) -> dict[int, list[Round]]:
    rounds: dict[int, list[Round]] = {size: [] for size in options.sizes}
    with _playing() as (connected, player):
        jobs: EngineJobs
        channel = await Channel.over(connected, FromWorker, lambda message: jobs.submit(message), lambda: None)  # noqa: PLW0108  # jobs need it
        jobs = EngineJobs(lanes, channel, lambda _: version)
        assert player.stdin is not None
        assert player.stdout is not None
        player.stdin.write(LENGTH.pack(len(content := msgspec.msgpack.encode(plans))) + content)
        for _ in range(options.rounds):
            for size in options.sizes:
                num_frames = max(1, options.requests // size)
                before = time.thread_time(), time.process_time()
                player.stdin.write(LENGTH.pack(size) + LENGTH.pack(num_frames))
                player.stdin.flush()
                await asyncio.get_running_loop().run_in_executor(None, player.stdout.read, 1)
                loop_s, all_s = time.thread_time() - before[0], time.process_time() - before[1]
                per_request = 1e6 / (size * num_frames)
                rounds[size].append(Round(loop_s * per_request, (all_s - loop_s) * per_request))
        player.stdin.close()
        player.wait(30)
        channel.close()
    return rounds


@contextmanager
def _playing() -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "benchmarks.engine_intake", "--play", str(theirs.fileno())]
    with (
        theirs,
        subprocess.Popen(  # noqa: S603
            command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as player,
    ):
        try:
            yield ours, player
        finally:
            player.kill()


def play_worker(connected: socket.socket) -> None:
    """Send frames and wait for their answers, as standard input says: a size and a number of frames."""
    commands = sys.stdin.buffer
    plans = msgspec.msgpack.decode(commands.read(*LENGTH.unpack(commands.read(LENGTH.size))), type=list[Submit])
    decoder = msgspec.msgpack.Decoder(list[FromEngine])
    answers = connected.makefile("rb")
    while len(command := commands.read(2 * LENGTH.size)) == 2 * LENGTH.size:
        size, num_frames = LENGTH.unpack(command[: LENGTH.size])[0], LENGTH.unpack(command[LENGTH.size :])[0]
        for number in range(num_frames):
            frame = [plans[(number * size + place) % len(plans)] for place in range(size)]
            content = msgspec.msgpack.encode(frame)
            connected.sendall(LENGTH.pack(len(content)) + content)
            num_left = size
            while num_left:
                found = decoder.decode(answers.read(*LENGTH.unpack(answers.read(LENGTH.size))))
                num_left -= sum(isinstance(each, Ranked) for each in found)
        sys.stdout.buffer.write(b".")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
