"""Settings from the options of a command and the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.cli.failures import UsageError

if TYPE_CHECKING:
    # Imported for real when a command runs: it takes its time to load.
    from service.settings.settings import Settings

_READ_AT_THE_START = ("bundle", "graph_buckets", "beam_table", "api_keys_file")


def read_settings(**options: object) -> Settings:
    """The settings of `vip5 serve` and `vip5 predict`; options that are None leave the choice to the environment.

    Raises UsageError for an unknown variable, a missing setting, a bad value, and a path that does not exist.
    """
    from service.cli.terminal import progress_bar
    from service.settings.fields import PREFIX
    from service.settings.loading import SettingsError
    from service.settings.served_bundle import load_with_bundle

    try:
        with progress_bar() as progress:
            settings = load_with_bundle(options, progress)
    except SettingsError as error:
        raise UsageError(str(error)) from error
    for name in _READ_AT_THE_START:
        path = getattr(settings, name)
        if path is not None and not path.exists():
            raise UsageError(f"setting {name} ({PREFIX}{name.upper()}) is {str(path)!r}, which does not exist")
    return settings
