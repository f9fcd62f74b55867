"""Each client has a limit for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import RateLimitedError
from service.http.api_keys import ApiKey, new_key
from service.http.rate_limits import Quotas, RateLimits
from service.settings.settings import Settings


def test_one_request_too_many_is_refused_with_the_time_to_come_back() -> None:
    limits = RateLimits("3/hour")
    for _ in range(3):
        limits.check("ann")

    with pytest.raises(RateLimitedError, match="3 per 1 hour") as refused:
        limits.check("ann")

    assert 1 <= (refused.value.retry_after_s or 0) <= 3600


def test_clients_do_not_use_up_each_others_limits() -> None:
    limits = RateLimits("1/hour")
    limits.check("ann")
    limits.check("bob")

    with pytest.raises(RateLimitedError):
        limits.check("bob")


def test_of_several_limits_each_holds() -> None:
    limits = RateLimits("100/second;2/hour")
    limits.check("ann")
    limits.check("ann")

    with pytest.raises(RateLimitedError, match="2 per 1 hour"):
        limits.check("ann")


def test_what_one_limit_refuses_does_not_use_up_another() -> None:
    limits = RateLimits("4/day;2/hour")
    limits.check("ann")
    limits.check("ann")
    for _ in range(5):
        with pytest.raises(RateLimitedError, match="2 per 1 hour"):
            limits.check("ann")


def test_what_exceeds_one_quota_does_not_use_up_another() -> None:
    key = ApiKey.model_validate_json(new_key("shop", quota="100/day;10/hour").line)
    quotas = Quotas()
    for _ in range(5):
        with pytest.raises(RateLimitedError, match="10 left of its quota of 10 per 1 hour"):
            quotas.charge(key, 50)
    quotas.charge(key, 10)


@pytest.mark.parametrize("limits", ["", "many", "100", "100/fortnight"])
def test_what_is_no_limit_is_refused(limits: str) -> None:
    with pytest.raises(ValueError, match="is not a rate limit; write a number per unit of time, such as 100/second"):
        Settings(bundle=Path("bundle"), rate_limit=limits)
