"""What the container files say is so: sources exist, settings are known, ports agree, all is pinned, unprivileged."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.grafana.dashboard import FILE as DASHBOARD
from deploy.image.trim import UNUSED, trim
from service.observability import probe
from service.settings.fields import PREFIX
from service.settings.settings import Settings
from tests.unit.deploy.containers import (
    COMPOSE,
    OVERRIDES,
    ROOT,
    compose,
    dockerfile,
    environment_of,
    is_let_in,
    of_stage,
    services,
)

BIN = Path(sys.executable).parent
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
OTHERS = {
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "HOME",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "REDIS_PASSWORD",
    "REDISCLI_AUTH",
    "GF_SECURITY_ADMIN_PASSWORD",
    "GF_AUTH_ANONYMOUS_ENABLED",
    "GF_USERS_ALLOW_SIGN_UP",
    "GF_ANALYTICS_REPORTING_ENABLED",
    "GF_ANALYTICS_CHECK_FOR_UPDATES",
    "PROMETHEUS_URL",
    "LOAD_API_KEY",
    "ALERT_WEBHOOK_URL",
    "PATH",
    "TRACES_URL",
    "RAY_USAGE_STATS_ENABLED",
}
FULL_VERSION = re.compile(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z]+)*@sha256:[0-9a-f]{64}")
VERSION = re.compile(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z]+)*(@sha256:[0-9a-f]{64})?")
"""The digest is added by `make digests`, which needs a registry."""
STAGES = ("cpu", "cuda", "ray", "ray-cuda")
"""Images."""
COMPOSE_FILES = [COMPOSE, *OVERRIDES]


def run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# The Dockerfile


def test_hadolint_finds_no_fault_in_the_dockerfile() -> None:
    run(BIN / "hadolint", "--failure-threshold", "style", ROOT / "Dockerfile")


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_runs_unprivileged_and_is_ended_and_probed_as_the_service_expects(stage: str) -> None:
    last = {each.name: each.value for each in of_stage(stage)}

    uid, _, gid = last["USER"].partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert json.loads(last["ENTRYPOINT"]) == ["vip5"], "in exec form, so that signals reach it"
    assert json.loads(last["CMD"]) == ["serve"]
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(last["HEALTHCHECK"].partition("CMD ")[2]) == ["python", "-m", probe.__name__]
    assert of_stage(stage)[-1].name == "USER", "nothing is installed by whom it runs as"


@pytest.mark.parametrize("stage", STAGES)
def test_the_last_stage_installs_nothing(stage: str) -> None:
    runs = [each.value for each in of_stage(stage) if each.name == "RUN"]

    for command in runs:
        assert not re.search(r"apt-get|curl|wget|gcc|build-essential", command)
        assert "pip install" not in command
    assert dockerfile()[-1].stage == "cpu", "what is built where no target is named"


@pytest.mark.parametrize("stage", STAGES)
def test_a_change_of_code_changes_the_last_layer_alone(stage: str) -> None:
    """The project's sources reach one stage, of which the image takes the project alone, after all else."""
    with_sources = {each.stage for each in dockerfile() if each.name == "COPY" and "service" in each.value}
    layers = [each.value for each in of_stage(stage) if each.name in {"COPY", "RUN"}]

    assert with_sources == {"project"}
    assert layers[-1] == "--from=project /project /opt/vip5"
    device = "cuda" if stage.endswith("cuda") else "cpu"
    assert f"--from=packages-{device} /opt/vip5 /opt/vip5" in layers
    assert not [layer for layer in layers[:-1] if "project" in layer]


def test_each_image_has_the_build_of_torch_that_it_needs() -> None:
    """PyPI's build has the kernels for GPUs; pip prefers it where both are to be had."""
    runs = {each.stage: each.value for each in dockerfile() if each.name == "RUN"}

    assert "--requirement requirements-torch-cpu.lock" in runs["packages-cpu"]
    assert "--requirement requirements-torch.lock" in runs["packages-cuda"]


def test_no_file_keeps_the_mode_of_the_checkout() -> None:
    """COPY keeps modes: what goes into the image directly comes from stages that set them."""
    for stage in STAGES:
        copies = [each.value for each in of_stage(stage) if each.name == "COPY"]
        assert all(copy.startswith("--from=") for copy in copies), copies
    files = [each for each in dockerfile() if each.stage == "files"]
    assert files[-1].name == "RUN"
    assert files[-1].value == "chmod -R u=rwX,go=rX /srv"


def test_serving_loads_nothing_that_is_left_out_of_the_image() -> None:
    blocked = [pattern.replace("/", ".") for pattern in UNUSED if "*" not in pattern and "/lib/" not in pattern]
    code = (
        "import sys\n"
        f"sys.modules |= dict.fromkeys({blocked!r})\n"
        "import service.cli.serving, model.engine.onnx.executor, model.engine.torch_executor\n"
    )
    run(sys.executable, "-c", code)
    if importlib.util.find_spec("ray") is not None:
        run(sys.executable, "-W", "ignore", "-c", f"{code}import service.ray.application, service.ray.prediction\n")
    assert {"torch.test", "sympy"} <= set(blocked)


def test_what_is_named_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "torch/include/a.h",
        "torch/bin/torch_shm_manager",
        "sympy/core/a.py",
        "pyarrow/_flight.so",
        "pyarrow/lib.so",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    trim(tmp_path)

    kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert kept == ["pyarrow/lib.so", "torch/bin/torch_shm_manager"]


def test_every_source_exists_and_is_let_into_the_build() -> None:
    copies = [each for each in dockerfile() if each.name == "COPY"]

    for each in copies:
        for source in [] if each.value.startswith("--from=") else each.value.split()[:-1]:
            found = [path for path in ROOT.glob(source) if path.name != "__pycache__"]
            assert found, source
            for path in found:
                file = next(child for child in path.rglob("*") if child.is_file()) if path.is_dir() else path
                assert is_let_in(str(file.relative_to(ROOT))), file


@pytest.mark.parametrize(
    "path", [".env", ".git/config", ".venv/bin/python", "tests/tiny.py", "keys.jsonl", "demo/x.pem"]
)
def test_nothing_else_is_let_into_the_build(path: str) -> None:
    assert not is_let_in(path)
    assert not is_let_in("service/__pycache__/app.cpython-311.pyc")


def test_the_bundle_and_the_ports_are_where_the_variables_say() -> None:
    environment = environment_of("cpu")
    copied = {each.value.split()[-1] for each in of_stage("files") if each.name == "COPY"}
    workdir = next(each.value for each in of_stage("cpu") if each.name == "WORKDIR")

    assert environment["VIP5_BUNDLE"].replace(workdir, ".") in copied
    assert Path(environment["VIP5_BUNDLE"]).parent == Path(environment["VIP5_BUNDLES_ROOT"])
    exposed = [each.value for each in of_stage("cpu") if each.name == "EXPOSE"]
    assert exposed == [environment["VIP5_PORT"]] == [str(Settings.model_fields["port"].default)]
    assert str(probe.DEFAULT_PORT) == environment["VIP5_PORT"]
    assert environment_of("cuda")["VIP5_DEVICE"] == "cuda"


def test_every_variable_of_the_images_is_one_that_something_reads() -> None:
    for stage in STAGES:
        assert environment_of(stage).keys() <= SETTINGS | OTHERS


# Versions


LOCKS = ("", "-dev", "-torch", "-torch-cpu", "-cuda", "-onnx-gpu", "-ray")
_HASHES = r"(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+"
PIN = re.compile(rf"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)(?: ; [^\\]+)? \\{_HASHES}\n")


def pins(file: str) -> dict[str, str]:
    text = (ROOT / file).read_text()
    assert PIN.sub("", text) == "", f"{file} has a line that is not pinned exactly, with hashes"
    return {found[1]: found[2] for found in PIN.finditer(text)}


def test_every_lock_file_has_hashes_and_the_torch_of_the_makefile() -> None:
    for lock in LOCKS:
        assert pins(f"requirements{lock}.lock")
    (version,) = re.findall(r"^TORCH \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pins("requirements-torch.lock") == {"torch": version}
    assert pins("requirements-torch-cpu.lock") == {"torch": f"{version}+cpu"}
    assert "torch" not in pins("requirements.lock") | pins("requirements-dev.lock")


def test_a_range_of_a_lock_file_can_be_left_out_as_the_dockerfile_does() -> None:
    """`sed` takes the line of onnxruntime and its hashes, and no other."""
    (expression,) = re.findall(r"sed '([^']+)' requirements\.lock", (ROOT / "Dockerfile").read_text())
    command = ["sed", expression, str(ROOT / "requirements.lock")]
    kept = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {each[1] for each in PIN.finditer(kept)}
    assert PIN.sub("", kept) == ""
    assert found == pins("requirements.lock").keys() - {"onnxruntime"}


def test_what_is_installed_is_what_the_lock_files_say_by_hash() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile[makefile.index("$(INSTALLED):") : makefile.index("touch $@")]
    assert "BY_HASH = $(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement" in makefile
    installs = re.findall(r"(\$\(BY_HASH\)|pip install) (requirements\S+|--\S.*)", recipe)
    assert [how for how, _ in installs] == ["$(BY_HASH)"] * 4 + ["pip install"]
    assert installs[-1][1] == "--quiet --no-deps --no-build-isolation --editable ."


def test_every_version_is_pinned_and_those_of_the_service_are_those_of_the_tests() -> None:
    served, tested = pins("requirements.lock"), pins("requirements-dev.lock")

    assert served.items() <= tested.items()


def test_ray_and_what_it_needs_are_in_its_image_alone() -> None:
    served, added, tested = (pins(f"requirements{lock}.lock") for lock in ("", "-ray", "-dev"))
    needed, found = [Requirement("ray[data,serve]")], dict[str, set[str]]()
    while needed:
        each = needed.pop()
        name, extras = canonicalize_name(each.name), {"", *each.extras}
        if extras <= found.get(name, set()):
            continue
        found[name] = found.get(name, set()) | extras
        for line in metadata.requires(name) or []:
            other = Requirement(line)
            if other.marker is None or any(other.marker.evaluate({"extra": extra}) for extra in extras):
                needed.append(other)

    assert added.items() <= tested.items()
    assert not added.keys() & served.keys(), "they would be in the image twice"
    assert found.keys() - {"ray"} <= served.keys() | added.keys()
    assert added.keys() <= found.keys()


def test_the_dockerfile_pins_all_that_it_names() -> None:
    arguments = dict(each.value.split("=", 1) for each in dockerfile() if each.name == "ARG")
    assert FULL_VERSION.fullmatch(arguments["PYTHON_IMAGE"])
    for each in dockerfile():
        if each.name == "FROM":
            stages = {"${PYTHON_IMAGE}", "empty", "packages-cpu", "runtime", "served-cpu", "served-cuda"}
            assert each.value.partition(" AS ")[0] in stages, "some builders do not find a stage that an argument names"
        for wheel in re.findall(r"pip (?:--python \S+ )?install[^&]*", each.value if each.name == "RUN" else ""):
            assert re.search(r"--no-deps --require-hashes|--no-index|--no-build-isolation", wheel), wheel


def test_the_gpus_runtime_is_one_that_the_project_admits() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (admitted,) = re.findall(r'^onnx-gpu = \["(.*)"\]', project, re.MULTILINE)
    version = pins("requirements-onnx-gpu.lock")["onnxruntime-gpu"]

    assert Requirement(admitted).specifier.contains(version)
    assert "onnxruntime" in pins("requirements.lock"), "or else there is nothing that it could take the place of"


def test_python_is_one_that_the_project_admits() -> None:
    (needed,) = re.findall(r'^requires-python = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    (version,) = re.findall(r"^ARG PYTHON_IMAGE=python:([\d.]+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert Requirement(f"python{needed}").specifier.contains(version)


# docker-compose.yml


def test_compose_files_are_as_the_specification_says() -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *COMPOSE_FILES)


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_every_variable_of_a_container_is_one_that_something_reads(file: Path) -> None:
    for name, service in compose(file)["services"].items():
        assert service.get("environment", {}).keys() <= SETTINGS | OTHERS, name


@pytest.mark.parametrize("name", services())
def test_a_container_may_do_nothing_that_it_need_not(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "devices"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert service["image"].startswith("vip5-serve:") or VERSION.fullmatch(service["image"])
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}, "a log that nobody rotates fills the disk"
    assert service["networks"]
    assert "healthcheck" in service


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_what_is_mounted_exists_and_may_not_be_written(file: Path) -> None:
    document = compose(file)
    for service in document["services"].values():
        for volume in service.get("volumes", ()):
            source, _, mode = volume.split(":")[0], volume.split(":")[1], volume.split(":")[2:]
            if source.startswith("."):
                assert mode == ["ro"], volume
                assert (ROOT / source).exists() or source == "./deploy/compose/keys", volume
            else:
                assert source in document["volumes"], volume


def test_secrets_have_no_value_that_could_be_left_as_it_is() -> None:
    text = COMPOSE.read_text()

    for name in ("REDIS_PASSWORD", "VIP5_ADMIN_TOKEN", "GRAFANA_ADMIN_PASSWORD"):
        assert set(re.findall(rf"\$\{{{name}[^}}]*\}}", text)) == {f"${{{name}:?see docs/operations.md}}"}


def test_the_service_is_given_the_time_that_it_takes_to_drain() -> None:
    service = services()["vip5"]

    assert int(service["stop_grace_period"].removesuffix("s")) > float(service["environment"]["VIP5_DRAIN_S"])
    assert service["healthcheck"]["test"][1:] == ["python", "-m", probe.__name__]


def scraped(file: str) -> Any:  # noqa: ANN401  # a document of YAML
    return yaml.safe_load((ROOT / file).read_text())


def test_prometheus_scrapes_the_port_that_has_the_metrics() -> None:
    environment = services()["vip5"]["environment"]
    (job,) = scraped("deploy/compose/prometheus.yml")["scrape_configs"]
    (alone,) = scraped("deploy/prometheus/prometheus.yml")["scrape_configs"]

    assert [config["port"] for config in job["dns_sd_configs"]] == [int(environment["VIP5_ADMIN_PORT"])]
    assert environment["VIP5_ADMIN_HOST"] == "0.0.0.0", "Prometheus has a container of its own"
    assert [config["names"] for config in job["dns_sd_configs"]] == [["vip5"]]
    assert alone["static_configs"][0]["targets"] == [f"localhost:{Settings.model_fields['port'].default}"]
    for name in ("job_name", "metrics_path"):
        assert job[name] == alone[name]
    for name in ("global", "rule_files"):
        assert scraped("deploy/compose/prometheus.yml")[name] == scraped("deploy/prometheus/prometheus.yml")[name]


def test_published_ports_are_those_that_are_listened_on() -> None:
    ports = {name: [port.split(":")[2] for port in service.get("ports", ())] for name, service in services().items()}
    environment = services()["vip5"]["environment"]

    assert ports["vip5"] == [environment_of("cpu")["VIP5_PORT"], environment["VIP5_ADMIN_PORT"]]
    assert {name for name, each in ports.items() if each} == {"vip5", "prometheus", "alertmanager", "grafana"}
    assert environment["VIP5_REDIS_URL"].startswith("redis://redis:6379")
    assert "\nport 6379\n" in (ROOT / "deploy/compose/redis.conf").read_text()


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    grafana = services()["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    (provider,) = scraped("deploy/grafana/provisioning/dashboards/vip5.yml")["providers"]
    (source,) = scraped("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]

    assert ROOT / next(host for host, inside in mounts.items() if inside == provider["options"]["path"]) == (
        DASHBOARD.parent
    )
    assert source["url"].removeprefix("$") in grafana["environment"]
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
