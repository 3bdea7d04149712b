"""Ray, imported where it is wanted: a Ray that is started here serves this machine alone."""

from __future__ import annotations

import os
from types import ModuleType

from thalweg.core import MissingExtra


def prepare_ray() -> None:
    """Have a Ray that is imported later listen on the loopback and send no statistics; its switches are read then."""
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def start_ray(**options: object) -> ModuleType:
    """Ray, begun with ``options`` unless it runs already.

    Raises:
        MissingExtra: Ray is not installed.
    """
    prepare_ray()
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    if not ray.is_initialized():
        ray.init(**{"include_dashboard": False, "log_to_driver": False, **options})
    found: ModuleType = ray
    return found
