"""Settings of what signs the data in Redis, for the service and for commands."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_cache.signing import MIN_SECRET, Signing
from service.settings.fields import PREFIX

SIGNING_SECRETS = ("signing_secret", "signing_secret_other")


class SigningSettings(BaseSettings):
    """What signs the data in Redis, for the service and for commands."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    signing_secret: SecretStr | None = Field(
        default=None,
        min_length=MIN_SECRET,
        repr=False,
        description="Secret that signs embeddings and the journal in Redis (default: they are not signed).",
    )
    signing_secret_other: SecretStr | None = Field(
        default=None,
        min_length=MIN_SECRET,
        repr=False,
        description="Another secret whose signatures are accepted, while the secret is changed (default: none).",
    )
    signing_accepts_unsigned: bool = Field(
        default=False, description="Whether unsigned data in Redis is accepted, while signing is introduced."
    )

    @property
    def signing(self) -> Signing | None:
        if self.signing_secret is None:
            return None
        other = None if self.signing_secret_other is None else self.signing_secret_other.get_secret_value()
        return Signing(self.signing_secret.get_secret_value(), other, self.signing_accepts_unsigned)

    @model_validator(mode="after")
    def _check_signing(self) -> Self:
        if self.signing_secret is None and (self.signing_secret_other is not None or self.signing_accepts_unsigned):
            raise ValueError(
                f"{PREFIX}SIGNING_SECRET_OTHER and {PREFIX}SIGNING_ACCEPTS_UNSIGNED have no effect without "
                f"{PREFIX}SIGNING_SECRET; set it, or remove them"
            )
        return self
