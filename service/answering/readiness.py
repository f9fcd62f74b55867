"""Readiness: requests are accepted once every domain has answered a warm-up request, until the service drains."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from model.errors import EngineError, InputError
from service.answering.recommender import Recommender
from service.errors import DrainingError, NotReadyError
from service.observability.trace import RequestTrace
from service.schemas.ranking import SequentialRequest
from service.versions.domain_version import DomainVersion, Lease

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 2


class Readiness:
    """Reasons for not being ready, by domain, and whether the service is draining."""

    def __init__(self) -> None:
        self._waiting_for: dict[str, str] = {"": "the bundle is being loaded"}
        self._is_draining = False
        self.has_failed = False
        """Whether a warm-up has failed, so that waiting does not help."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a domain has become ready or not, and when the service begins to drain."""
        self.others: Callable[[], Sequence[str]] = tuple
        """Returns further reasons for not being ready."""
        self.lag: Callable[[], Sequence[str]] = tuple
        """Returns reasons why this replica is too far behind the others; asked for by every request."""
        self.degraded: Callable[[], Sequence[str]] = tuple
        """Returns causes of degraded answers, which do not affect readiness."""

    @property
    def waiting_for(self) -> Mapping[str, str]:
        """Reasons by domain; those of the whole service under the empty name."""
        return self._waiting_for

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def await_domains(self, names: Iterable[str]) -> None:
        self.follow({name: f"the domain {name} is being warmed up" for name in names}, is_draining=self._is_draining)

    def mark_ready(self, name: str) -> None:
        rest = {other: reason for other, reason in self._waiting_for.items() if other != name}
        self.follow(rest, is_draining=self._is_draining)

    def mark_failed(self, name: str, error: Exception) -> None:
        self.has_failed = True
        reason = f"the warm-up of the domain {name} failed: {error}"
        self.follow({**self._waiting_for, name: reason}, is_draining=self._is_draining)

    def drain(self) -> None:
        """Reject new requests; running ones continue."""
        self.follow(self._waiting_for, is_draining=True)

    def follow(self, waiting_for: Mapping[str, str], *, is_draining: bool) -> None:
        """Take these reasons over, as a worker does from the engine process."""
        before = self._waiting_for, self._is_draining
        self._waiting_for, self._is_draining = dict(waiting_for), is_draining
        if before != (self._waiting_for, self._is_draining):
            self.on_change()

    def reasons(self, domain: str | None = None) -> list[str]:
        """Reasons why all domains, or one, are not ready; empty when ready."""
        waiting_for = [reason for name, reason in self._waiting_for.items() if domain is None or name in ("", domain)]
        return [*(["the service is draining"] if self._is_draining else []), *waiting_for, *self.others(), *self.lag()]

    def require(self) -> None:
        """Raises DrainingError or NotReadyError."""
        if self._is_draining:
            raise DrainingError(
                "the service is shutting down and accepts no new requests; retry on another replica",
                retry_after_s=RETRY_AFTER_S,
            )
        reasons = self.reasons()
        if reasons:
            raise NotReadyError(
                f"the service is not ready: {'; '.join(reasons)}; retry later", retry_after_s=RETRY_AFTER_S
            )


async def warm_up(readiness: Readiness, recommender: Recommender, versions: Iterable[DomainVersion]) -> None:
    """Answer one request with each version. Raises the first error, after all versions were tried."""
    errors: list[Exception] = []
    for version in versions:
        name = version.domain.name
        try:
            with Lease(version, "stable"):
                await warm_up_version(recommender, version)
        except Exception as error:
            logger.exception("warm_up_failed", extra={"domain": name})
            readiness.mark_failed(name, error)
            errors.append(error)
        else:
            readiness.mark_ready(name)
    if errors:
        raise errors[0]


async def warm_up_version(recommender: Recommender, version: DomainVersion) -> None:
    """Answer one request with a version. Raises EngineError if its scores are not finite."""
    domain = version.domain
    first_item = domain.catalog.item_ids[int(domain.catalog.is_active.argmax())]
    request = SequentialRequest(domain=domain.name, history=[first_item], k=1, exclude_history=False)
    try:
        answer = await recommender.answer_from(version, request, RequestTrace(request_id="warm-up"))
    except InputError as error:
        # The version works, but its catalog allows no answer, for example without active items.
        logger.warning("warm_up_refused", extra={"domain": domain.name, "reason": str(error)})
        return
    if not all(math.isfinite(item.score) for item in answer.items):
        raise EngineError(
            f"version {version.ref.version} computes scores that are not finite; check its weights or tune it again"
        )
