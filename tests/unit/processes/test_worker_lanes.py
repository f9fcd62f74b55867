import math

import pytest

from model.errors import EngineError
from service.errors import DrainingError
from service.processes.worker_lanes import RemoteJob


def streaming_job() -> RemoteJob[str]:
    return RemoteJob(math.inf, lambda: None, None, is_admitted=False)


async def test_a_job_that_fails_right_after_its_admission_was_admitted() -> None:
    job = streaming_job()

    job.admit()
    job.fail(EngineError("poisoned"))  # before anyone has read that it was admitted

    await job.admitted()
    with pytest.raises(EngineError, match="poisoned"):
        await job.result()


async def test_what_a_job_is_refused_with_is_its_admission_s_error_and_its_result_s() -> None:
    job = streaming_job()

    job.fail(DrainingError("shutting down", retry_after_s=1))

    with pytest.raises(DrainingError):
        await job.admitted()
    with pytest.raises(DrainingError):
        await job.result()


async def test_a_job_that_needs_no_message_is_admitted_at_once() -> None:
    job: RemoteJob[str] = RemoteJob(math.inf, lambda: None, None, is_admitted=True)

    await job.admitted()
    job.fail(EngineError("poisoned"))

    await job.admitted()
    with pytest.raises(EngineError, match="poisoned"):
        await job.result()
