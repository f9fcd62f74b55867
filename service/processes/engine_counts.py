"""Counts for all workers against the limits of clients and keys."""

from __future__ import annotations

from service.channel.messages import Count, Counted
from service.errors import RateLimitedError
from service.http.app_state import AppState


def count(state: AppState, message: Count) -> Counted:
    """Count a client's request, or a key's tokens; a negative cost is given back."""
    try:
        if message.quota is None:
            if state.rate_limits is not None:
                state.rate_limits.check(message.name, message.cost)
        elif message.cost < 0:
            state.quotas.give_back(message.name, message.quota, -message.cost)
        else:
            state.quotas.spend(message.name, message.quota, message.cost)
    except RateLimitedError as error:
        return Counted(message.request, str(error), error.retry_after_s)
    return Counted(message.request, None, None)
