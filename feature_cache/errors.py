"""Errors of the feature cache that are meant for a user.

FeatureCacheError
├── RedisAddressError      a URL that names no Redis
├── RedisUnavailableError  Redis does not answer, or refuses
├── NotLoadedError         Redis holds no embeddings of the domain and encoder
└── FeatureValueError      an embedding that does not fit what is loaded

Each message names the value, the rule and the remedy.
"""


class FeatureCacheError(Exception):
    """Base of all errors of the feature cache."""


class RedisAddressError(FeatureCacheError):
    """A URL that names no Redis."""


class RedisUnavailableError(FeatureCacheError):
    """Redis does not answer in time, or refuses what is asked of it."""


class NotLoadedError(FeatureCacheError):
    """Redis holds no embeddings of the domain and encoder."""


class FeatureValueError(FeatureCacheError):
    """An embedding that does not fit what is loaded."""
