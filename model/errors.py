"""Errors that the model raises for bad input and bad bundles.

Vip5Error
├── InputError               a request that cannot be answered as it stands
│   ├── UnknownDomainError
│   ├── UnknownItemError
│   ├── UnknownTemplateError
│   └── UnknownColumnError
├── BundleError              a bundle, or a file to be imported, that breaks a rule
│   ├── IntegrityError       missing, truncated or tampered files
│   ├── BackboneMismatchError
│   ├── CatalogError         identifiers that are empty, duplicate or untokenisable
│   ├── UnsafeFileError      a pickle that would execute code
│   └── ExistsError          what is to be written exists already
├── DatasetError             a prepared dataset, or a file to prepare one from, that breaks a rule
├── TrainingError            a training configuration that cannot be run
└── EngineError              the engine failed at its own work

Each message names the value, the rule and the remedy.
"""


class Vip5Error(Exception):
    """Base of all errors that are meant for a user; `code` is stable and machine-readable."""

    code = "internal_error"


class InputError(Vip5Error):
    """A request that cannot be answered as it stands. `field` is the request's field at fault, if one is."""

    code = "invalid_input"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnknownDomainError(InputError):
    """The domain is not served."""

    code = "unknown_domain"


class UnknownItemError(InputError):
    """The item is not in the domain's catalog."""

    code = "unknown_item"


class UnknownTemplateError(InputError):
    """The template does not exist, or is not of this route's task."""

    code = "unknown_template"


class UnknownColumnError(InputError):
    """The catalog has no such column."""

    code = "unknown_column"


class BundleError(Vip5Error):
    """A bundle, or a file to be imported, that breaks a rule."""

    code = "invalid_bundle"


class IntegrityError(BundleError):
    """A file of the bundle is missing, truncated, tampered with or not listed."""

    code = "bundle_integrity"


class BackboneMismatchError(BundleError):
    """A domain was tuned on another backbone than the bundle's."""

    code = "backbone_mismatch"


class CatalogError(BundleError):
    """An identifier is empty, duplicate or cannot be tokenised, or a column is missing."""

    code = "invalid_catalog"


class UnsafeFileError(BundleError):
    """A pickle holds more than plain containers and tensors."""

    code = "unsafe_file"


class ExistsError(BundleError):
    """What is to be written exists already, and nobody asked for its replacement."""


class DatasetError(Vip5Error):
    """A prepared dataset, or a file to prepare one from, breaks a rule."""

    code = "invalid_dataset"


class TrainingError(Vip5Error):
    """A training configuration that cannot be run."""

    code = "invalid_training"


class EngineError(Vip5Error):
    """The engine failed at its own work."""

    code = "engine_error"
