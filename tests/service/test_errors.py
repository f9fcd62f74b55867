"""The table of errors: every error that there is has a status, and unexpected ones tell nothing."""

from __future__ import annotations

import inspect

import pytest
from pydantic import BaseModel, ValidationError

from model import errors as model_errors
from service import errors as service_errors
from service.problem_documents import STATUSES, code_of, problem_of, status_of

EXPECTED = {
    "backbone_mismatch": 422,
    "body_too_large": 413,
    "bundle_integrity": 422,
    "client_closed_request": 499,
    "cross_origin_refused": 400,
    "deadline_exceeded": 504,
    "change_timeout": 504,
    "unknown_host": 400,
    "draining": 503,
    "engine_error": 500,
    "invalid_bundle": 422,
    "invalid_catalog": 422,
    "invalid_input": 422,
    "journal_unavailable": 503,
    "forbidden": 403,
    "histories_disabled": 409,
    "histories_unavailable": 503,
    "journal_broken": 503,
    "bundle_store": 502,
    "no_history": 404,
    "load_too_large": 413,
    "head_too_large": 431,
    "malformed_body": 400,
    "malformed_request": 400,
    "method_not_allowed": 405,
    "not_ready": 503,
    "operation_conflict": 409,
    "overloaded": 429,
    "queue_full": 429,
    "range_not_satisfiable": 416,
    "rate_limited": 429,
    "replicas_differ": 504,
    "request_timeout": 408,
    "revision_conflict": 409,
    "too_many_connections": 503,
    "unauthorized": 401,
    "unknown_bundle": 404,
    "unknown_column": 422,
    "unknown_domain": 404,
    "unknown_item": 404,
    "unknown_route": 404,
    "unknown_template": 404,
    "unknown_picture": 404,
    "unknown_version": 404,
    "unsafe_file": 422,
    "unsupported_media_type": 415,
    "untrusted_bundle": 422,
}
STARTUP_ONLY = {
    "no_traces",
    "cannot_listen",
    "invalid_dataset",
    "invalid_api_keys",
    "invalid_audit_log",
    "invalid_signing_key",
    "invalid_beam_table",
    "lane_failed",
    "invalid_training",
}


def kinds() -> list[type[model_errors.Vip5Error]]:
    found = [
        kind for module in (model_errors, service_errors) for _, kind in inspect.getmembers(module, inspect.isclass)
    ]
    return sorted({kind for kind in found if issubclass(kind, model_errors.Vip5Error)}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", kinds())
def test_every_error_maps_to_its_status(kind: type[model_errors.Vip5Error]) -> None:
    error = kind("the value, the rule and the remedy")

    problem = problem_of(error, "id")

    expected = 500 if kind.code in STARTUP_ONLY | {"internal_error"} else EXPECTED[kind.code]
    assert (problem.status, problem.code) == (expected, kind.code)
    assert problem.detail == "the value, the rule and the remedy"
    # The change of which replicas_differ speaks is made: made again, it may undo the first one.
    assert problem.retryable is (expected in {429, 503, 504} and kind.code != "replicas_differ")


def test_every_code_of_the_table_is_expected() -> None:
    told = {code_of(kind("x")) for kind in STATUSES if issubclass(kind, model_errors.Vip5Error)}

    assert told == set(EXPECTED)


def test_a_field_at_fault_is_listed() -> None:
    problem = problem_of(model_errors.InputError("too long", field="history"), "id")

    assert problem.errors is not None
    assert [(error.field, error.message, error.code) for error in problem.errors] == [
        ("history", "too long", "invalid_input")
    ]


def test_validation_faults_are_listed() -> None:
    class Body(BaseModel):
        k: int

    with pytest.raises(ValidationError) as refused:
        Body.model_validate({"k": "x"})

    problem = problem_of(refused.value, "id")
    assert (problem.status, problem.code) == (422, "invalid_input")
    assert problem.errors is not None
    assert [error.field for error in problem.errors] == ["k"]


def test_an_unexpected_error_tells_nothing_of_itself() -> None:
    problem = problem_of(RuntimeError("secret path /etc"), "id")

    assert (problem.status, problem.code) == (500, "internal_error")
    assert "secret" not in problem.model_dump_json()


def test_the_nearest_class_of_the_table_counts() -> None:
    class VeryUnknownItemError(model_errors.UnknownItemError):
        """A kind that the table does not know."""

    assert status_of(VeryUnknownItemError("x")).status == 404
