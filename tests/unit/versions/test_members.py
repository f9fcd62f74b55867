"""What a replica says of itself, and how it stands to a change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from feature_cache.signing import Signing
from service.versions.lag import LagLimit
from service.versions.members import (
    WHOLE,
    Failure,
    Identity,
    Member,
    MemberState,
    Report,
    Target,
    decode_report,
    encode_report,
)

ONE = Identity("id-1", "one", "host", 7, "0.1.0", 1.0)
SERVING = Report(ONE, "history", {"toys": 3, "garments": 1})
TARGET = Target("history", {"toys": 3})
SIGNER = Signing("a secret of the tests").signer("replicas", "shop")
OTHER_SERVICE = Signing("a secret of the tests").signer("replicas", "other")
STRANGER = Signing("another secret of tests").signer("replicas", "shop")


def state_of(report: Report, age_s: float = 0.0) -> MemberState:
    return Member(report, age_s, lease_s=10.0).standing(TARGET).state


def failing(domain: str, revision: int, revisions: Mapping[str, int]) -> Report:
    return Report(ONE, "history", revisions, {domain: Failure(revision, "no bundle")})


def test_a_replica_serves_a_change_from_its_revision_on() -> None:
    assert state_of(SERVING) == "serving"
    assert state_of(dataclasses.replace(SERVING, revisions={"toys": 4})) == "serving"
    assert state_of(dataclasses.replace(SERVING, revisions={"toys": 2})) == "behind"
    assert state_of(dataclasses.replace(SERVING, revisions={"toys": 2}, is_applying=True)) == "loading"
    assert state_of(dataclasses.replace(SERVING, revisions={})) == "behind"


def test_revisions_of_another_history_say_nothing() -> None:
    assert state_of(dataclasses.replace(SERVING, history="other", revisions={"toys": 9})) == "behind"


def test_a_failure_counts_for_its_domain_and_from_the_change_on_at_which_it_came() -> None:
    assert state_of(failing("toys", 3, {"toys": 3})) == "failed"
    assert state_of(failing("toys", 2, {"toys": 2})) == "behind", "it may yet apply the change"
    assert state_of(failing("garments", 3, {"toys": 3})) == "serving"
    assert state_of(failing(WHOLE, 0, {"toys": 3})) == "failed"


def test_of_a_replica_whose_lease_has_ended_nothing_is_known() -> None:
    assert state_of(SERVING, age_s=10.1) == "lost"
    assert state_of(failing("toys", 3, {"toys": 3}), age_s=10.1) == "lost"


@pytest.mark.parametrize("signer", [None, SIGNER])
def test_what_a_replica_says_is_read_as_it_was_written(signer: None) -> None:
    report = failing("toys", 3, {"toys": 3})

    assert decode_report("id-1", encode_report(report, signer), signer) == report


def test_what_was_not_signed_by_a_replica_for_itself_is_refused() -> None:
    signed = encode_report(SERVING, SIGNER)

    assert decode_report("id-1", signed, None) == SERVING, "without a secret, signed ones are read too"
    assert decode_report("id-2", signed, SIGNER) is None
    assert decode_report("id-1", signed.replace(b'"toys":3', b'"toys":9'), SIGNER) is None
    assert decode_report("id-1", encode_report(SERVING, None), SIGNER) is None
    assert decode_report("id-1", encode_report(SERVING, OTHER_SERVICE), SIGNER) is None
    assert decode_report("id-1", encode_report(SERVING, STRANGER), SIGNER) is None
    lenient = Signing("a secret of the tests", accepts_unsigned=True).signer("replicas", "shop")
    assert decode_report("id-1", encode_report(SERVING, None), lenient) == SERVING
    assert decode_report("id-1", encode_report(SERVING, STRANGER), lenient) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"signed ", b"\xff", b'{"identity": 1}'])
def test_what_is_no_report_is_refused(content: bytes) -> None:
    assert decode_report("id-1", content, None) is None


@dataclasses.dataclass
class Followed:
    """Both the progress and the membership of a replica."""

    silence_s: float = 0.0
    behind_s: float = 0.0
    obstacles: tuple[str, ...] = ()


def reasons(followed: Followed, max_lag_s: float | None) -> list[str]:
    return [*LagLimit(followed, followed, max_lag_s).reasons()]  # type: ignore[arg-type]


def test_a_replica_is_too_far_behind_only_if_it_cannot_follow_and_there_is_a_limit() -> None:
    silent = Followed(silence_s=11.0, behind_s=11.0)
    loading = Followed(silence_s=0.1, behind_s=90.0)
    failed = Followed(silence_s=0.1, behind_s=90.0, obstacles=("the bundle is gone",))

    assert reasons(silent, None) == reasons(failed, None) == []
    assert "VIP5_MAX_LAG_S is 10" in reasons(silent, 10.0)[0]
    assert reasons(silent, 12.0) == []
    assert reasons(loading, 10.0) == []
    assert "the bundle is gone" in reasons(failed, 10.0)[0]
