"""Values in shared memory: what a worker writes is what another process reads, whole or not at all."""

from __future__ import annotations

import logging
import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.samples import Exemplar

from service.observability.metrics.shared import SharedValues
from service.observability.metrics.shared_layout import (
    END,
    FIRST_ENTRY,
    MAX_EXEMPLAR_BYTES,
    RECORD_WORDS,
    Key,
    Views,
    entry_words,
    read_exemplar,
    write_entry,
    write_exemplar,
)
from service.observability.metrics.shared_values import Appender, SharedValue
from tests.unit.observability.metrics.counting import counting_worker, metrics_in

COUNTER = Key("counter", "vip5_things", "vip5_things_total", (("kind", "a"),))
BUCKET = Key("histogram", "vip5_seconds", "vip5_seconds_bucket", (("le", "1.0"),))
PAGE = 4096

NEW_SERIES = """
import sys
from service.observability.metrics import Metrics
from service.observability.metrics.shared import SharedValues
SharedValues.open(int(sys.argv[1])).install()
metrics = Metrics()
print("ready", flush=True)
for number in range(1, 200):
    metrics.observe_request(f"/route/{number}", "toys", 200, 0.5)
    print(number, flush=True)
sys.stdin.read()
"""


def key(number: int) -> Key:
    return Key("counter", "vip5_things", "vip5_things_total", (("kind", f"{number}"),))


def test_values_are_read_in_the_order_of_their_creation() -> None:
    shared = SharedValues.create("test")
    appender = Appender(shared.descriptor)
    first, second = SharedValue(appender, COUNTER), SharedValue(appender, BUCKET)
    first.inc(2)
    first.inc(0.5)
    second.set(7)

    assert [(reading.key, reading.value) for reading in shared.read()] == [(COUNTER, 2.5), (BUCKET, 7)]
    assert (first.get(), second.get()) == (2.5, 7)
    shared.close()


def test_memory_that_is_full_grows_and_the_reader_follows() -> None:
    shared = SharedValues.create("test", PAGE)
    appender = Appender(shared.descriptor)
    values = []
    for number in range(300):
        values.append(SharedValue(appender, key(number)))
        values[-1].inc(number)
        if number % 50 == 0:
            assert len(shared.read()) == number + 1
    values[0].inc(1000)

    assert os.fstat(shared.descriptor).st_size > 20 * PAGE
    assert [reading.value for reading in shared.read()] == [1000, *range(1, 300)]
    shared.close()


def test_a_key_larger_than_the_memory_gets_the_room_it_needs() -> None:
    shared = SharedValues.create("test", PAGE)
    appender = Appender(shared.descriptor)
    long = COUNTER._replace(labels=(("kind", "x" * 5 * PAGE),))
    SharedValue(appender, long).inc(1)
    SharedValue(appender, COUNTER).inc(2)

    assert [(reading.key, reading.value) for reading in shared.read()] == [(long, 1), (COUNTER, 2)]
    shared.close()


def test_a_killed_workers_values_stay_and_none_is_torn(caplog: pytest.LogCaptureFixture) -> None:
    shared = SharedValues.create("test", PAGE)
    with counting_worker(shared, NEW_SERIES) as worker:
        for _ in range(40):
            last = int(worker.await_line())
            if last % 8 == 0:
                shared.read()
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait()
        found = {
            (dict(reading.key.labels)["route"]): reading.value
            for reading in shared.read()
            if reading.key.sample == "vip5_requests_total"
        }

    assert {f"/route/{number}" for number in range(1, last + 1)} <= set(found)
    assert all(found[f"/route/{number}"] == 1 for number in range(1, last + 1))
    assert not caplog.records
    shared.close()


def test_an_entry_is_invisible_until_its_last_write() -> None:
    shared = SharedValues.create("test")
    Appender(shared.descriptor)
    content = COUNTER.encode()
    size = entry_words(content, takes_exemplars=True)
    write_entry(shared._views, FIRST_ENTRY, content, size)
    before = shared.read()
    shared._views.words[END] = FIRST_ENTRY + size

    assert before == []
    assert [reading.key for reading in shared.read()] == [COUNTER]
    shared.close()


def test_the_newest_exemplar_is_read() -> None:
    shared = SharedValues.create("test")
    value = SharedValue(Appender(shared.descriptor), BUCKET)
    found = [shared.read()[0].exemplar]
    for number in range(3):
        value.set_exemplar(Exemplar({"trace_id": f"{number:032x}"}, 0.25 * number, 1e9 + number))
        found.append(shared.read()[0].exemplar)
    value.set_exemplar(Exemplar({"trace_id": "x" * MAX_EXEMPLAR_BYTES}, 1, 2e9))

    assert found[0] is None
    assert found[1:] == [Exemplar({"trace_id": f"{n:032x}"}, 0.25 * n, 1e9 + n) for n in range(3)]
    assert shared.read()[0].exemplar == found[-1], "labels that are too long leave the one before"
    shared.close()


def test_a_writer_that_dies_in_an_exemplar_leaves_the_one_before() -> None:
    shared = SharedValues.create("test")
    views, at, records_at = Appender(shared.descriptor).append(BUCKET)
    first = Exemplar({"trace_id": "a"}, 1, 1e9)
    write_exemplar(views, at, records_at, first)
    write_exemplar(views, at, records_at, Exemplar({"trace_id": "b"}, 2, 2e9))
    views.words[at + 3] = 1  # as if the last write had not happened

    assert read_exemplar(views, at, records_at) == first
    shared.close()


def test_an_exemplar_that_is_overwritten_while_it_is_read_is_not_shown() -> None:
    shared = SharedValues.create("test")
    views, at, records_at = Appender(shared.descriptor).append(BUCKET)
    write_exemplar(views, at, records_at, Exemplar({"trace_id": "a"}, 1, 1e9))
    for record in (0, RECORD_WORDS):
        views.doubles[records_at + record + 1] = 5.0

    assert read_exemplar(views, at, records_at) is None
    shared.close()


@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2**64 - 1) | st.integers(0, 500)), max_size=12))
def test_garbage_is_left_out_and_never_fails(words: list[tuple[int, int]]) -> None:
    shared = SharedValues.create("test", PAGE)
    appender = Appender(shared.descriptor)
    for number in range(8):
        value = SharedValue(appender, key(number))
        value.inc(1)
        value.set_exemplar(Exemplar({"trace_id": "a"}, 1, 1e9))
    for at, word in words:
        shared._views.words[at] = word

    assert {reading.key for reading in shared.read()} <= {key(number) for number in range(8)}
    shared.close()


def test_damage_is_logged_once_and_what_lies_before_it_is_read(caplog: pytest.LogCaptureFixture) -> None:
    shared = SharedValues.create("test")
    appender = Appender(shared.descriptor)
    SharedValue(appender, COUNTER).inc(3)
    _, at, _ = appender.append(BUCKET)
    shared._views.words[at + 1] ^= 1
    readings = [shared.read() for _ in range(3)]

    assert [[reading.value for reading in each] for each in readings] == [[3]] * 3
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "worker_metrics_damaged")
    ]
    shared.close()


def test_the_memory_cannot_shrink_under_its_reader() -> None:
    shared = SharedValues.create("test", 4 * PAGE)
    with pytest.raises(PermissionError):
        os.ftruncate(shared.descriptor, PAGE)
    shared.close()


def test_other_files_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("other")
    for content in (b"", b"\0" * PAGE):
        (folder / "file").write_bytes(content)
        descriptor = os.open(folder / "file", os.O_RDWR)
        with pytest.raises(ValueError, match="is not the memory of metrics"):
            SharedValues.open(descriptor)
        os.close(descriptor)


def test_gauges_are_not_shared_and_methods_still_work() -> None:
    shared = SharedValues.create("test")
    with metrics_in(shared) as metrics:
        metrics.set_bundle("toys", "a")
        metrics.count_reload("toys", ok=True)

    assert not [reading for reading in shared.read() if reading.key.family.startswith("vip5_bundle")]
    assert b'vip5_bundle_info{domain="toys",hash="a"} 1.0' in metrics.render().content
    shared.close()


def test_views_can_be_closed_while_the_other_side_counts_on() -> None:
    shared = SharedValues.create("test", PAGE)
    value = SharedValue(Appender(shared.descriptor), COUNTER)
    other = Views.of(shared._views.memory)
    other.words.release()
    other.doubles.release()
    other.bytes.release()
    shared.close()
    value.inc(1)

    assert value.get() == 1
