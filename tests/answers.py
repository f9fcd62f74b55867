"""When an answer is the one that a page shows, which was recorded on another machine and at another time."""

from __future__ import annotations

import math

SCORE_TOLERANCE = 1e-3
OF_A_PROCESS = {f"replicas.{name}" for name in ("id", "name", "host", "pid", "started_at")}


def answer_like(shown: object, answer: object, field: str = "") -> object:
    """What is shown, with the answer's own value wherever it may differ.

    `request_id` may be any text, and so may what tells a process from others in `replicas`; durations under
    `timings_ms` may be any number that is not negative, and `score` may be off by 0.001. All else must be equal.
    """
    if isinstance(shown, dict) and isinstance(answer, dict):
        inside = "duration" if field == "timings_ms" else ""
        before = "replicas." if field == "replicas" else ""
        return {name: answer_like(value, answer.get(name), inside or before + name) for name, value in shown.items()}
    if isinstance(shown, list) and isinstance(answer, list):
        inside = field if field == "replicas" else ""
        alike = [answer_like(value, given, inside) for value, given in zip(shown, answer, strict=False)]
        return alike + shown[len(answer) :]
    return answer if _is_alike(field, shown, answer) else shown


def _is_alike(field: str, shown: object, answer: object) -> bool:
    if field in OF_A_PROCESS:
        return type(shown) is type(answer) and bool(answer)
    if field == "request_id":
        return isinstance(shown, str) and isinstance(answer, str) and bool(answer)
    if not isinstance(shown, float) or not isinstance(answer, float):
        return False
    return (
        answer >= 0
        if field == "duration"
        else field == "score" and math.isclose(shown, answer, rel_tol=0, abs_tol=SCORE_TOLERANCE)
    )
