"""Errors that stop an encoding run. A picture that cannot be read does not stop it: it becomes a `Fault`."""

from __future__ import annotations

from feature_cache.errors import FeatureCacheError


class EncodingError(FeatureCacheError):
    """A model, a source or a work folder that cannot be used; the message names the value, the rule and the remedy."""


class MissingExtraError(EncodingError):
    """A library that only this kind of encoding needs is not installed."""

    def __init__(self, library: str, extra: str, error: ImportError) -> None:
        super().__init__(
            f"{library}, which this encoder needs, cannot be imported ({error}); pip install 'vip5-serve[{extra}]'"
        )
