"""What the parts of the service tell the metrics is what Prometheus reads."""

from __future__ import annotations

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from service.observability.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    text = metrics.render().content.decode()
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_quick_refusal_is_counted_but_is_no_quick_answer() -> None:
    metrics = Metrics()
    for status in (200, 429, 504):
        metrics.observe_request("/recommend/sequential", "toys", status, 0.01)
    found = samples(metrics)
    route = "route=/recommend/sequential"
    assert found["vip5_e2e_request_latency_seconds_count", "domain=toys", route] == 2
    assert found["vip5_requests_total", "domain=toys", route, "status=429"] == 1


def test_a_domain_has_one_bundle_at_a_time() -> None:
    metrics = Metrics()
    metrics.set_bundle("toys", "old")
    metrics.set_bundle("toys", "new")
    metrics.set_bundle("garments", "old")
    found = {key for key in samples(metrics) if key[0] == "vip5_bundle_info"}

    assert found == {
        ("vip5_bundle_info", "domain=toys", "hash=new"),
        ("vip5_bundle_info", "domain=garments", "hash=old"),
    }


def test_a_domain_that_is_served_no_more_leaves_the_metrics_and_may_come_back() -> None:
    metrics = Metrics()
    metrics.set_bundle("toys", "old")
    metrics.drop_bundle("toys")
    metrics.drop_bundle("toys")
    gone = samples(metrics)
    metrics.set_bundle("toys", "old")

    assert not any(key[0] in {"vip5_bundle_info", "vip5_last_reload_success"} for key in gone)
    assert samples(metrics)["vip5_bundle_info", "domain=toys", "hash=old"] == 1


def test_a_failed_reload_is_counted_and_stays_the_last_until_one_succeeds() -> None:
    metrics = Metrics()
    metrics.set_bundle("toys", "old")
    fresh = samples(metrics)
    metrics.count_reload("toys", ok=False)
    failed = samples(metrics)
    metrics.count_reload("toys", ok=True)
    mended = samples(metrics)

    failures, last = ("vip5_reload_failures_total", "domain=toys"), ("vip5_last_reload_success", "domain=toys")
    assert [each[failures] for each in (fresh, failed, mended)] == [0, 1, 1]
    assert [each[last] for each in (fresh, failed, mended)] == [1, 0, 1]


def test_versions_are_told_apart_by_their_role() -> None:
    metrics = Metrics()
    metrics.observe_version("toys", "a", "stable", 0.2)
    metrics.observe_version("toys", "b", "canary", 0.02)
    metrics.observe_version("toys", "b", "canary", 0.02)
    metrics.observe_shadow_overlap("toys", 0.75)
    found = samples(metrics)

    stable, canary = ("domain=toys", "role=stable", "version=a"), ("domain=toys", "role=canary", "version=b")
    assert found["vip5_version_requests_total", *stable] == 1
    assert found["vip5_version_requests_total", *canary] == 2
    assert found["vip5_version_latency_seconds_sum", *canary] == pytest.approx(0.04)
    assert found["vip5_shadow_overlap_ratio_sum", "domain=toys"] == 0.75
    assert found["vip5_shadow_overlap_ratio_bucket", "domain=toys", "le=0.7"] == 0
    assert found["vip5_shadow_overlap_ratio_bucket", "domain=toys", "le=0.8"] == 1


def test_the_engines_time_is_counted_by_lane() -> None:
    metrics = Metrics()
    metrics.observe_busy("ranking", 0.5)
    metrics.observe_busy("ranking", 0.25)
    metrics.count_reduced_beams()
    found = samples(metrics)

    assert found["vip5_engine_busy_seconds_total", "lane=ranking"] == 0.75
    assert found["vip5_engine_busy_seconds_total", "lane=text"] == 0
    assert found["vip5_num_beams_reduced_total",] == 1


def test_redis_that_is_not_configured_is_not_said_to_be_down() -> None:
    without, configured = Metrics(), Metrics()
    configured.watch_redis(lambda: False)

    assert [samples(each)["vip5_redis_configured",] for each in (without, configured)] == [0, 1]
    assert samples(configured)["vip5_redis_up",] == 0


def test_the_process_is_measured_and_births_of_series_are_not() -> None:
    found = samples(Metrics())

    assert found["process_resident_memory_bytes",] > 0
    assert not any(key[0].endswith("_created") for key in found)


def test_a_cpu_has_no_gpu_memory() -> None:
    metrics = Metrics()
    metrics.watch_gpu("cpu")

    assert not any(key[0] == "vip5_gpu_memory_bytes" for key in samples(metrics))


def test_gpu_memory_is_asked_of_torch_once_the_device_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    metrics.watch_gpu("cuda:0")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 40)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 60)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    before = samples(metrics)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    after = samples(metrics)

    assert not any(key[0] == "vip5_gpu_memory_bytes" for key in before)
    assert {key[1]: value for key, value in after.items() if key[0] == "vip5_gpu_memory_bytes"} == {
        "kind=used": 40,
        "kind=reserved": 60,
        "kind=total": 100,
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_tensor_on_the_gpu_is_in_the_memory_used() -> None:
    metrics = Metrics()
    metrics.watch_gpu("cuda:0")
    tensor = torch.zeros(1_000_000, device="cuda:0")
    found = {key[1]: value for key, value in samples(metrics).items() if key[0] == "vip5_gpu_memory_bytes"}

    assert tensor.nbytes <= found["kind=used"] <= found["kind=reserved"] < found["kind=total"]
