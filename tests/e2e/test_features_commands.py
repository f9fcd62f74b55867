"""`vip5 features` fills a Redis from a bundle, checks it, and says in one line what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest

from model.bundle.features import ItemFeatures, write_features
from service.cli import main
from tests.e2e.processes import COMMAND, PATIENCE_S, environment, serving
from tests.redis_servers import RedisServer, redis_server
from tests.tiny import tiny_bundle

ASK = {"domain": "toys", "history": ["item-1", "item-11"], "user_id": "u1"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("commands"))


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), "--requirepass", "pw") as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """Empty, and named by the environment."""
    for name in [name for name in os.environ if name.startswith("VIP5_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VIP5_REDIS_URL", shared_server.url)
    monkeypatch.setenv("VIP5_REDIS_PASSWORD", "pw")
    with shared_server.client as client:
        client.flushall()
    return shared_server


Outcome: TypeAlias = tuple[object, str, str]


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Outcome:
    """Exit status, standard output, and the error, which is one line."""
    with pytest.raises(SystemExit) as end:
        main(["features", *map(str, arguments)])
    streams = capsys.readouterr()
    return end.value.code, streams.out, streams.err.removesuffix("\n")


@pytest.mark.usefixtures("server")
def test_what_was_loaded_is_verified_listed_and_dropped(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = ("--bundle", bundle, "--domain", "toys")

    status, loaded, notice = run(capsys, "load", *of, "--grace-s", "0")
    assert notice.startswith("110 of 120 items have an embedding, 10 do not: ")
    version = loaded.split()[-1]
    assert (status, loaded) == (0, f"loaded 110 embeddings of toys by vitb32 as version {version}\n")
    status, again, _ = run(capsys, "load", *of, "--grace-s", "0", "--dtype", "float32")
    assert status == 0
    assert f"dropped {version}" in again
    status, verified, _ = run(capsys, "verify", *of)
    assert status == 0
    assert "holds 110 embeddings of toys, 0 of them put since the load; 110 compared with the source" in verified
    status, listed, _ = run(capsys, "versions", *of)
    assert (status, listed.count("current"), listed.count("float32")) == (0, 1, 1)
    newer = again.splitlines()[0].split()[-1]
    assert run(capsys, "drop", *of, "--version", newer)[:2] == (0, f"dropped {newer}\n")
    status, _, error = run(capsys, "verify", *of)
    assert (status, error) == (
        1,
        "error: Redis holds no embeddings of toys by vitb32; load them with `vip5 features load`",
    )


@pytest.mark.usefixtures("server")
def test_verifying_exits_1_where_redis_and_source_differ(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    other = tiny_bundle(tmp_path / "other", num_items=60)
    run(capsys, "load", "--bundle", bundle, "--domain", "toys")

    status, _, error = run(capsys, "verify", "--bundle", other, "--domain", "toys")

    assert status == 1
    assert "are in Redis, but not in the source" in error


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["load", "--domain", "toys"], 2, "give --bundle, or the name of the encoder"),
        (["load", "--domain", "toys", "--encoder", "vitb32"], 2, "give --features, or a --bundle that holds"),
        (
            ["verify", "--domain", "toys", "--encoder", "x", "--redis-url", "http://a"],
            2,
            "must start with one of redis://",
        ),
        (["verify", "--domain", "toys", "--encoder", "x", "--redis-url", "redis://127.0.0.1:1"], 1, "does not answer"),
        (["verify", "--domain", "toys", "--encoder", "vitb16"], 1, "holds no embeddings of toys by vitb16"),
        (["drop", "--domain", "toys", "--encoder", "x", "--version", "y"], 1, "no version 'y'"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _, error = run(capsys, *arguments)

    assert found == status
    assert words in error
    assert "Traceback" not in error


@pytest.mark.usefixtures("server")
def test_wrong_options_of_a_bundle_are_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_bundle = ("--bundle", bundle)
    for arguments, words in [
        (("load", *of_bundle, "--domain", "books"), "has no domain 'books'; it has toys"),
        (("load", *of_bundle, "--domain", "toys", "--encoder", "x"), "leave --encoder out"),
        (("load", *of_bundle, "--domain", "toys", "--dtype", "int8"), "'int8' is not one of 'float16', 'float32'"),
    ]:
        status, _, error = run(capsys, *arguments)
        assert status == 2
        assert words in error


@pytest.mark.usefixtures("server")
def test_an_item_that_is_put_is_in_the_prompts_of_a_running_service(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "load", "--bundle", bundle, "--domain", "toys", "--dtype", "float32")
    np.save(tmp_path / "new.npy", np.ones(8, dtype=np.float32))
    np.save(tmp_path / "wide.npy", np.ones(9, dtype=np.float32))
    names = {name: value for name, value in os.environ.items() if name.startswith("VIP5_REDIS")}
    with (
        serving(bundle, {**names, "VIP5_FEATURE_STORE": "redis", "VIP5_FEATURE_TIMEOUT_MS": "1000"}) as service,
        httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client,
    ):
        before = client.post("/recommend/sequential", json=ASK).json()
        put = ("put", "--domain", "toys", "--encoder", "vitb32", "--item-id", "item-11", "--features")
        assert run(capsys, *put, tmp_path / "new.npy")[0] == 0
        while "missing_features" in _kinds(after := client.post("/recommend/sequential", json=ASK).json()):
            pass
        status, _, error = run(capsys, *put, tmp_path / "wide.npy")

    assert "1 of 2 items of the prompt had no image embedding" in str(before["degraded"])
    assert after["items"] != before["items"]
    assert status == 1
    assert "shape [1, 9]" in error


def _kinds(answer: dict[str, Any]) -> list[str]:
    return [each["kind"] for each in answer["degraded"]]


@pytest.mark.usefixtures("server")
def test_a_load_that_is_killed_leaves_whole_versions_and_its_lock(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = ("--bundle", bundle, "--domain", "toys")
    run(capsys, "load", *of)
    # It waits for its grace time after the switch, so it is killed while it holds the lock, at a known place.
    arguments = [*COMMAND, "features", "load", *map(str, of), "--grace-s", "3600"]
    names = {name: value for name, value in os.environ.items() if name.startswith("VIP5_REDIS")}
    with subprocess.Popen(arguments, env=environment(names)) as process:
        while run(capsys, "versions", *of)[1].count("complete") != 1:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)

    status, verified, _ = run(capsys, "verify", *of)
    assert (status, "holds 110 embeddings" in verified) == (0, True)
    status, _, error = run(capsys, "load", *of)
    assert status == 1
    assert "another load of these embeddings is running, or was killed" in error


@pytest.mark.usefixtures("server")
def test_embeddings_of_another_encoder_are_not_loaded(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = tmp_path / "other.safetensors"
    write_features(features, ItemFeatures(("item-1",), np.ones((1, 8), dtype=np.float16), encoder="rn50"))
    code, _, error = run(capsys, "load", "--bundle", bundle, "--domain", "toys", "--features", features)
    assert code == 1
    assert "made by rn50, the model was tuned with vitb32" in error


@pytest.mark.usefixtures("server")
def test_embeddings_are_signed_with_the_secret_of_the_environment(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = ("--bundle", bundle, "--domain", "toys")
    assert run(capsys, "load", *of, "--grace-s", "0")[0] == 0
    monkeypatch.setenv("VIP5_SIGNING_SECRET", "a secret of many characters")
    status, _, error = run(capsys, "verify", *of)
    assert status == 1
    assert "110 items have values that are truncated, of another encoder, without a valid signature" in error
    np.save(tmp_path / "row.npy", np.ones(8, dtype=np.float32))
    assert run(capsys, "load", *of, "--grace-s", "0")[0] == 0
    assert run(capsys, "put", *of, "--item-id", "item-1", "--features", tmp_path / "row.npy")[0] == 0
    assert run(capsys, "verify", *of)[0] == 0
    monkeypatch.setenv("VIP5_SIGNING_SECRET", "another secret of characters")
    assert run(capsys, "verify", *of)[0] == 1
    monkeypatch.setenv("VIP5_SIGNING_SECRET", "short")
    assert run(capsys, "verify", *of)[0] == 2
