"""Signatures of the journal in Redis: what no holder of the secret wrote for its place is refused. Does no I/O.

An entry is signed with its service, its history and the signature of the entry of its domain before it, a snapshot with
its service and its history, and the signatures that the next entries follow. So an entry that is forged, changed,
repeated, moved, or copied from elsewhere is told from one that was appended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feature_cache.signing import Signer
from service.versions.formats import (
    Place,
    UnreadableError,
    decode_states,
    decode_tips,
    encode_entry,
    encode_states,
    is_of_newer_release,
    place_of,
    signed_entry,
    signed_states,
    split_entry,
    split_states,
)
from service.versions.state import AnyEntry, States

MAX_REPLACED = 100
"""Histories that a history says it replaces: replicas that follow one of them follow it."""
NAMES_SIGNATURE = "mac:"


@dataclass(frozen=True)
class Tip:
    """The last entry of a domain; the signature is None after an unsigned one, which was accepted."""

    revision: int = 0
    signature: str | None = ""


class SignedChain:
    """Mutable: the last entry of each domain. Without a signer, everything is accepted and nothing is signed."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer
        self.tips: Mapping[str, Tip] = {}

    @property
    def is_signed(self) -> bool:
        return self._signer is not None

    @property
    def is_strict(self) -> bool:
        """Whether what is unsigned is refused."""
        return self._signer is not None and not self._signer.accepts_unsigned

    def clear(self) -> None:
        self.tips = {}

    def signed_entry(self, history: str, entry: AnyEntry) -> bytes:
        """The entry as the next of its domain."""
        content = encode_entry(entry)
        if self._signer is None:
            return content
        after = self.tips.get(entry.domain, Tip()).signature or ""
        return signed_entry(content, after, lambda body: self._sign("entry", history, body))

    def signed_states(self, history: str, states: States) -> bytes:
        if self._signer is None:
            return encode_states(states)
        tips = {name: self.tips.get(name, Tip()).signature or "" for name in states}
        return signed_states(states, tips, lambda body: self._sign("snapshot", history, body))

    def take_entry(self, history: str, content: bytes | None) -> Place | None:
        """The place of a signed entry, which is the last of its domain then; None if no signature is required.

        Raises UnreadableError for an entry that was not signed for this place.
        """
        if self._signer is None or content is None:
            return None
        signed = split_entry(content)
        if signed is None:
            if self._signer.accepts_unsigned:
                return None
            raise UnreadableError("it is not signed")
        body, signature = signed
        self._check(signature, "entry", history, body)
        place = place_of(content)
        tip = self.tips.get(place.domain, Tip())
        if place.revision <= tip.revision:
            raise UnreadableError(f"it repeats or contradicts revision {place.revision} of {place.domain!r}")
        if place.revision == tip.revision + 1 and tip.signature not in {None, place.after}:
            raise UnreadableError(f"it was signed to follow another change of {place.domain!r}")
        self.tips = {**self.tips, place.domain: Tip(place.revision, signature)}
        return place

    def take_unsigned(self, entry: AnyEntry) -> None:
        """Go on after an unsigned entry that was accepted."""
        if entry.revision > self.tips.get(entry.domain, Tip()).revision:
            self.tips = {**self.tips, entry.domain: Tip(entry.revision, None)}

    def take_states(self, history: str, content: bytes) -> States:
        """The states of a snapshot, which the next entries follow. Raises UnreadableError."""
        signed = split_states(content)
        if self._signer is not None and signed is None and not self._signer.accepts_unsigned:
            raise UnreadableError("it is not signed")
        if self._signer is not None and signed is not None:
            body, signature = signed
            self._check(signature, "snapshot", history, body)
        states, tips = decode_states(content), decode_tips(content)
        self.tips = {name: Tip(state.revision, tips.get(name)) for name, state in states.items()}
        return states

    def _sign(self, *parts: str | bytes) -> str:
        assert self._signer is not None
        return self._signer.sign(*parts).hex()

    def _check(self, signature: str, *parts: str | bytes) -> None:
        assert self._signer is not None
        if not self._signer.is_valid(bytes.fromhex(signature), *parts):
            raise UnreadableError("its signature is not valid for this service, history and secret")


def is_signed_by_newer_release(signer: Signer, history: str, states: bytes) -> bool:
    """Whether a snapshot is a newer release's; one whose signature is not valid is nobody's.

    Newer formats must keep to this kind of signature.
    """
    signed = split_states(states)
    if signed is None:
        return False
    body, signature = signed
    try:
        return signer.is_valid(bytes.fromhex(signature), "snapshot", history, body) and is_of_newer_release(body)
    except UnreadableError:
        return False


def signed_names(signer: Signer | None, history: str, replaces: Iterable[str]) -> tuple[str, ...]:
    """Names of the histories that a history replaces, and their signature as the last."""
    names = tuple(dict.fromkeys(name for name in replaces if name))[:MAX_REPLACED]
    if signer is None:
        return names
    return (*names, NAMES_SIGNATURE + signer.sign("history", history, *names).hex())


def trusted_names(signer: Signer | None, history: str, stored: tuple[str, ...]) -> tuple[str, ...]:
    """The names without their signature; none if a signature is required and it is not valid."""
    is_signed = bool(stored) and stored[-1].startswith(NAMES_SIGNATURE)
    names = stored[:-1] if is_signed else stored
    if signer is None or (not is_signed and signer.accepts_unsigned):
        return names
    expected = [stored[-1].removeprefix(NAMES_SIGNATURE)] if is_signed else []
    is_trusted = any(signer.is_valid(_unhex(each), "history", history, *names) for each in expected)
    return names if is_trusted else ()


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
