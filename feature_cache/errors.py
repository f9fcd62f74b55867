"""Errors that the feature cache raises for users.

FeatureCacheError
├── RedisAddressError      a Redis URL that is not valid
├── RedisUnavailableError  Redis does not answer in time, or refuses a command
├── NotLoadedError         Redis holds no embeddings of the domain and encoder
├── FeatureValueError      an embedding with another encoder, shape or range than required
├── EditionError           a record in Redis that cannot be read or does not fit (remote/layout.py)
└── EncodingError          an encoding run that cannot go on (encoding/errors.py)

Each message names the value, the rule and the remedy.
"""


class FeatureCacheError(Exception):
    """Base of all errors of the feature cache."""


class RedisAddressError(FeatureCacheError):
    """A Redis URL that is not valid."""


class RedisUnavailableError(FeatureCacheError):
    """Redis does not answer in time, or refuses a command."""


class NotLoadedError(FeatureCacheError):
    """Redis holds no embeddings of the domain and encoder."""


class FeatureValueError(FeatureCacheError):
    """An embedding with another encoder, shape or range than required."""
