"""Bodies of POST /recommend/sequential:batch and /recommend/direct:batch."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from service.schemas import examples
from service.schemas.base import AnswerBody, RequestBody
from service.schemas.problem import Problem
from service.schemas.ranking import DirectRequest, RankingAnswer, SequentialRequest

MAX_REQUESTS = 256


def _or_error(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401  # a body of any kind
    """The body, or its error, which is the answer to this request and not to the others."""
    try:
        return validate(value)
    except ValidationError as error:
        return error


Sequential: TypeAlias = Annotated[SequentialRequest, WrapValidator(_or_error)]
Direct: TypeAlias = Annotated[DirectRequest, WrapValidator(_or_error)]
Some = Field(
    min_length=1, max_length=MAX_REQUESTS, description=f"1 to {MAX_REQUESTS} requests; invalid ones fail alone."
)


class SequentialBatch(RequestBody):
    """Many requests of /recommend/sequential. In place of an invalid one stands its ValidationError."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.SEQUENTIAL_BATCH})

    requests: Annotated[list[Sequential], Some]


class DirectBatch(RequestBody):
    """Many requests of /recommend/direct. In place of an invalid one stands its ValidationError."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.DIRECT_BATCH})

    requests: Annotated[list[Direct], Some]


class BatchAnswer(AnswerBody):
    """An answer or a problem document for each request, in order."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH_ANSWER]})

    answers: list[RankingAnswer | Problem] = Field(
        description="For each request what it would get alone; a problem document has `status` and `code`."
    )
