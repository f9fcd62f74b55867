"""When a replica that cannot follow the others must not answer any more."""

from __future__ import annotations

from collections.abc import Sequence

from service.settings.fields import PREFIX
from service.versions.membership import Membership
from service.versions.progress import Progress


class LagLimit:
    """The reasons why this replica is too far behind; none without a limit."""

    def __init__(self, progress: Progress, membership: Membership, max_lag_s: float | None) -> None:
        self._progress = progress
        self._membership = membership
        self._max_lag_s = max_lag_s

    def reasons(self) -> Sequence[str]:
        """Asked for by every request.

        A replica that is in touch with the others and loads what they have changed is waited for by those who want all
        replicas to serve a change, so that it may go on.
        """
        limit_s = self._max_lag_s
        if limit_s is None:
            return ()
        setting = f"{PREFIX}MAX_LAG_S is {limit_s:g}"
        if (silence_s := self._membership.silence_s) > limit_s:
            silent = f"this replica has not been in touch with the others through Redis for {silence_s:.0f} s"
            return (f"{silent}, and may serve what they have replaced ({setting})",)
        if (obstacles := self._progress.obstacles) and (behind_s := self._progress.behind_s) > limit_s:
            return tuple(f"{each}; for {behind_s:.0f} s now ({setting})" for each in obstacles)
        return ()
