"""The settings of a replica on Ray Serve."""

from __future__ import annotations

from service.ray.options import ReplicaOptions
from service.settings.fields import PREFIX
from service.settings.loading import SettingsError
from service.settings.served_bundle import load_with_bundle
from service.settings.settings import Settings


def settings_of(options: ReplicaOptions) -> Settings:
    """The settings of the options and the variables; a bundle that is a URL is pulled.

    Raises SettingsError for what cannot be where several replicas answer behind one address, and BundleError kinds.
    """
    settings = load_with_bundle(options.settings)
    _check(settings)
    changed: dict[str, object] = {}
    if settings.num_threads is None:
        changed["num_threads"] = max(1, int(options.num_cpus))
    if options.num_gpus and "device" not in settings.model_fields_set:
        changed["device"] = "cuda"  # Ray shows a process only the GPUs that it may use
    return settings.model_copy(update=changed)


def _check(settings: Settings) -> None:
    if settings.workers:
        raise SettingsError(f"setting workers is {settings.workers!r}; Ray adds replicas, so remove {PREFIX}WORKERS")
    if settings.admin_port is not None:
        raise SettingsError(
            f"setting admin_port is {settings.admin_port}; Ray's proxies have one port for all, so remove "
            f"{PREFIX}ADMIN_PORT"
        )
    if settings.admin_options.is_enabled and settings.journal_options.redis is None:
        raise SettingsError(
            f"/admin is enabled, and changes would reach one replica only; set {PREFIX}JOURNAL to redis, or remove the "
            "admin token"
        )
    if settings.history_store == "embedded":
        raise SettingsError(
            "setting history_store is 'embedded', and each replica would know other histories; set "
            f"{PREFIX}HISTORY_STORE to redis or none"
        )
