"""The fuzzing of requests counts what is answered, and sees an answer that must not be."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from tests.fuzz import bodies
from tests.fuzz.service import Caller


def test_a_server_error_and_an_answer_off_the_document_are_faults() -> None:
    app = FastAPI()

    @app.get("/health/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/broken")
    def broken(number: int) -> JSONResponse:
        return JSONResponse({}, 500)

    @app.get("/other")
    def other(number: int) -> JSONResponse:
        return JSONResponse({}, 201)

    caller = Caller()
    found = {each.path: bodies.fuzz(each, 1, 5, caller) for each in bodies.operations_of(app)}
    assert found["/health/ready"] == ""
    assert "Server error" in found["/broken"]
    assert "Undocumented status code" in found["/other"]
    assert caller.statuses.keys() == {200, 201, 500}
    assert (caller.statuses[200], caller.hangs) == (1, 0)
