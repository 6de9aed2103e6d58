"""The annotation formats that can be imported, one module each.

A new format is a new module here that offers an `Importer` under the name IMPORTER; nothing else has to know of it.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from xray_vqa.core.workers import collecting_less
from xray_vqa.dataset.importers.source import Importer, Source, SourceFolder, SourceItem, SourceScan
from xray_vqa.errors import ConfigError

__all__ = [
    "FORMATS", "Importer", "Source", "SourceFolder", "SourceItem", "SourceScan", "find_importer", "open_folder",
    "read_source",
]  # fmt: skip


def _importers() -> Iterator[Importer]:
    for module_info in pkgutil.iter_modules(__path__):
        importer = getattr(importlib.import_module(f"{__name__}.{module_info.name}"), "IMPORTER", None)
        if importer is not None:
            yield importer


FORMATS: dict[str, Importer] = {importer.name: importer for importer in _importers()}


def open_folder(source_dir: Path, scratch_dir: Path | None = None) -> SourceFolder:
    """Return the files of a folder.

    Raises:
        ConfigError: There is no such folder, or what is unpacked would be written into it.
    """
    if not source_dir.is_dir():
        raise ConfigError(f"{source_dir}: no such folder; give the folder that holds images and annotations")
    if scratch_dir is not None and source_dir.resolve() in scratch_dir.resolve().parents:
        raise ConfigError(
            f"{scratch_dir.parent} lies inside the source {source_dir}; choose an --output-dir outside of it"
        )
    return SourceFolder(source_dir, scratch_dir)


def find_importer(folder: SourceFolder, format_name: str | None = None) -> Importer:
    """Return the importer of a format, or the one that recognises a folder.

    Raises:
        ConfigError: No such format, or none or several recognise the folder.
    """
    if format_name is not None:
        if format_name not in FORMATS:
            raise ConfigError(f"no format {format_name!r}; there are {', '.join(FORMATS)}")
        return FORMATS[format_name]
    found = [importer for importer in FORMATS.values() if importer.recognises(folder)]
    general = {importer.refines for importer in found}
    found = [importer for importer in found if importer.name not in general]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(importer.name for importer in found)
        raise ConfigError(f"{folder.root} holds {names} annotations; choose one with --format, or import them apart")
    raise ConfigError(
        f"{folder.root}: no annotations of a known format found. The folder holds {_what_is_in(folder)}. Known are "
        f"{'; '.join(f'{importer.name}: {importer.description}' for importer in FORMATS.values())}. "
        "--format NAME overrules, and --format images takes images without annotations"
    )


def read_source(folder: SourceFolder, importer: Importer) -> Source:
    """Return what an importer reads in a folder, together with the files that could not even be listed."""
    with collecting_less():
        source = importer.read(folder)
    return replace(source, faults=(*folder.faults, *source.faults))


def _what_is_in(folder: SourceFolder) -> str:
    counts = folder.count_of_suffixes()
    named = [f"{count} {suffix or 'files without a suffix'}" for suffix, count in list(counts.items())[:8]]
    more = f" and {len(counts) - 8} other kinds" if len(counts) > 8 else ""
    return (", ".join(named) or "no file") + more
