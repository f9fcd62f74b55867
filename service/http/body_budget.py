"""A limit on the memory of all request bodies that are held at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import OverloadedError

SMALL_BYTES = 65_536
"""Bodies up to this size, as ordinary requests have, are always accepted; the number of connections bounds them."""

RETRY_AFTER_S = 1


class HeldBody:
    """The body of one request, from its first byte to the request's end."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.num_bytes = 0
        """Bytes that count against the budget."""

    def grow_to(self, num_bytes: int) -> None:
        """Raises OverloadedError if there is no room for so many bytes."""
        if num_bytes > SMALL_BYTES:
            self._budget.add(num_bytes - self.num_bytes)
            self.num_bytes = num_bytes


class BodyBudget:
    """Counts the bytes of large bodies on the event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.num_bytes = 0

    @contextmanager
    def held(self) -> Iterator[HeldBody]:
        body = HeldBody(self)
        try:
            yield body
        finally:
            self.num_bytes -= body.num_bytes

    def add(self, num_bytes: int) -> None:
        """Raises OverloadedError if the limit would be exceeded; nothing is counted then."""
        if self.num_bytes + num_bytes > self._max_bytes:
            raise OverloadedError(
                f"large request bodies of {self.num_bytes} bytes are being processed, the limit is {self._max_bytes}; "
                f"retry in {RETRY_AFTER_S} s, or send bodies of at most {SMALL_BYTES} bytes",
                retry_after_s=RETRY_AFTER_S,
            )
        self.num_bytes += num_bytes
