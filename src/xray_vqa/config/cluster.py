"""The Ray cluster that a stage spreads its work over."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xray_vqa.config.loading import require


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Join the cluster that RAY_ADDRESS names, else one on this machine for the time, and give the module `ray`.

    Ray's own progress bars and reports of use are off.

    Raises:
        ConfigError: Ray is not installed.
    """
    require("ray", extra="ray")
    # It reports its use to its makers otherwise, and a site of ours may have no way out and no wish to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        yield ray
    finally:
        if is_ours:
            ray.shutdown()
