"""Errors of the model for invalid input and invalid files.

Vip5Error
├── InputError               an invalid request
│   ├── UnknownDomainError
│   ├── UnknownItemError
│   ├── UnknownTemplateError
│   └── UnknownColumnError
├── BundleError              an invalid bundle, or an invalid file to import
│   ├── IntegrityError       missing, truncated, modified or unlisted files
│   ├── BackboneMismatchError
│   ├── CatalogError         empty, duplicate or untokenisable identifiers, or a missing column
│   ├── UnsafeFileError      a pickle that could execute code
│   ├── UntrustedBundleError no signature by a trusted key
│   ├── BundleStoreError     a store of bundles that cannot be used, or lacks what is asked for
│   └── ExistsError          an output that exists already
├── DatasetError             an invalid dataset, or an invalid file to prepare one from
├── SigningKeyError          a file of keys for signatures that cannot be used
├── TrainingError            an invalid training configuration
└── EngineError              a failure of the engine

Each message names the value, the rule and the remedy.
"""


class Vip5Error(Exception):
    """Base of all errors with a message for users. `code` is stable and machine-readable."""

    code = "internal_error"


class InputError(Vip5Error):
    """The request is invalid. `field` is the invalid field of the request, if there is one."""

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
    """The template does not exist or belongs to another task."""

    code = "unknown_template"


class UnknownColumnError(InputError):
    """The catalog has no such column."""

    code = "unknown_column"


class BundleError(Vip5Error):
    """A bundle, or a file to import, is invalid."""

    code = "invalid_bundle"


class IntegrityError(BundleError):
    """A file of the bundle is missing, truncated, modified or not listed."""

    code = "bundle_integrity"


class BackboneMismatchError(BundleError):
    """A domain was tuned on a different backbone than the bundle's."""

    code = "backbone_mismatch"


class CatalogError(BundleError):
    """An identifier is empty, duplicate or cannot be tokenised, or a column is missing."""

    code = "invalid_catalog"


class UnsafeFileError(BundleError):
    """A pickle contains more than plain containers and tensors."""

    code = "unsafe_file"


class UntrustedBundleError(BundleError):
    """The bundle is not signed by a trusted key."""

    code = "untrusted_bundle"


class BundleStoreError(BundleError):
    """A store of bundles cannot be reached or used, or lacks what is asked for."""

    code = "bundle_store"


class ExistsError(BundleError):
    """What is to be written exists already, and nobody asked for its replacement."""


class DatasetError(Vip5Error):
    """A dataset, or a file to prepare one from, is invalid."""

    code = "invalid_dataset"


class SigningKeyError(Vip5Error):
    """A file of keys for signatures cannot be used."""

    code = "invalid_signing_key"


class TrainingError(Vip5Error):
    """A training configuration is invalid."""

    code = "invalid_training"


class EngineError(Vip5Error):
    """The engine failed."""

    code = "engine_error"
