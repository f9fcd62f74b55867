"""What stops an encoding run. A picture that cannot be read stops nothing: it becomes a `Fault`."""

from __future__ import annotations

from feature_cache.errors import FeatureCacheError


class EncodingError(FeatureCacheError):
    """A model, a source or a work folder that breaks a rule; the message names the value, the rule and the remedy."""


class MissingExtraError(EncodingError):
    """A library is not installed that only this kind of encoding needs."""

    def __init__(self, library: str, extra: str, error: ImportError) -> None:
        super().__init__(
            f"{library} cannot be imported ({error}), and this encoder needs it; pip install 'vip5-serve[{extra}]'"
        )
