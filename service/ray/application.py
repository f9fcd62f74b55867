"""The application on Ray Serve: an ingress in front of replicas. Its import path is `service.ray.application:build`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from service.ray.ingress import Ingress
from service.ray.options import ApplicationOptions, Scaling
from service.ray.replica import Replica
from service.settings.loading import load_settings

LOGGING = LoggingConfig(enable_access_log=False)
"""Replicas log each request themselves."""
MARGIN_S = 10.0
"""What closing a replica may take after its requests were waited for."""


def build(args: Mapping[str, Any]) -> Application:
    """The application. Ray calls this with the `args` of a Serve config.

    Raises ValidationError for `args` that are no ApplicationOptions, and SettingsError.
    """
    options = ApplicationOptions.model_validate(args)
    drain_s = load_settings(options.settings).drain_s
    domains = {name: place.model_dump() for name, place in options.domains.items()}
    replicas: Any = serve.deployment(
        Replica,
        name="replica",
        autoscaling_config=_autoscaling(options.scaling),
        ray_actor_options={"num_cpus": options.num_cpus, "num_gpus": options.num_gpus},
        max_ongoing_requests=options.max_ongoing_requests,
        max_queued_requests=options.max_queued_requests,
        graceful_shutdown_timeout_s=drain_s + MARGIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        health_check_timeout_s=15,
        logging_config=LOGGING,
        user_config={"domains": domains},
    )
    ingress: Any = serve.deployment(
        Ingress,
        name="ingress",
        autoscaling_config=_autoscaling(options.ingress_scaling),
        ray_actor_options={"num_cpus": options.ingress_cpus},
        max_ongoing_requests=8 * options.max_ongoing_requests,
        graceful_shutdown_timeout_s=drain_s + MARGIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config=LOGGING,
        user_config={"domains": domains},
    )
    application: Application = ingress.bind(replicas.bind(options.replica), options.replica)
    return application


def _autoscaling(scaling: Scaling) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        target_ongoing_requests=scaling.target_ongoing_requests,
        upscale_delay_s=scaling.upscale_delay_s,
        downscale_delay_s=scaling.downscale_delay_s,
        look_back_period_s=scaling.look_back_s,
    )
