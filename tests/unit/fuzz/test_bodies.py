"""The fuzzing of requests counts what is answered, and sees an answer that must not be."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from tests.fuzz import bodies


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

    found = {each.path: bodies.fuzz(each, each.path, 1, 5) for each in bodies.operations_of(app)}
    assert (found["/health/ready"]["fault"], found["/health/ready"]["statuses"]) == ("", {200: 1})
    assert "Server error" in str(found["/broken"]["fault"])
    assert "Undocumented status code" in str(found["/other"]["fault"])
