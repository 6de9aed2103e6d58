"""The formats that datasets and pairs can be exported to, one module each.

A new format is a new module here that offers an `Exporter` under the name EXPORTER; nothing else has to know of it.
"""

import importlib
import pkgutil
from collections.abc import Iterator

from xray_vqa.dataset.exporters.exporter import Exporter, ExportReport
from xray_vqa.errors import ConfigError

__all__ = ["EXPORTERS", "ExportReport", "Exporter", "find_exporter"]


def _exporters() -> Iterator[Exporter]:
    for module_info in pkgutil.iter_modules(__path__):
        exporter = getattr(importlib.import_module(f"{__name__}.{module_info.name}"), "EXPORTER", None)
        if exporter is not None:
            yield exporter


EXPORTERS: dict[str, Exporter] = {exporter.name: exporter for exporter in _exporters()}


def find_exporter(name: str) -> Exporter:
    """Return the exporter of a format. Raises ConfigError where there is none."""
    if name not in EXPORTERS:
        raise ConfigError(f"no format {name!r}; there are {', '.join(EXPORTERS)}")
    return EXPORTERS[name]
