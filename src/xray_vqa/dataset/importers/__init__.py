"""The annotation formats that can be imported, one module each; a new one is a module and a line here."""

from pathlib import Path

from xray_vqa.dataset.importers.coco import CocoImporter
from xray_vqa.dataset.importers.source import Importer, Source, SourceItem, SourceScan
from xray_vqa.dataset.importers.voc import VocImporter
from xray_vqa.errors import ConfigError

__all__ = ["FORMATS", "Importer", "Source", "SourceItem", "SourceScan", "find_importer"]

FORMATS: dict[str, Importer] = {importer.name: importer for importer in (CocoImporter(), VocImporter())}


def find_importer(source_dir: Path, format_name: str | None = None) -> Importer:
    """Return the importer of a format, or the one that recognises a folder.

    Raises:
        ConfigError: No folder, no such format, or none or several recognise the folder.
    """
    if not source_dir.is_dir():
        raise ConfigError(f"{source_dir}: no such folder; give the folder that holds images and annotations")
    if format_name is not None:
        if format_name not in FORMATS:
            raise ConfigError(f"no format {format_name!r}; there are {', '.join(FORMATS)}")
        return FORMATS[format_name]
    found = [importer for importer in FORMATS.values() if importer.recognises(source_dir)]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(importer.name for importer in found)
        raise ConfigError(f"{source_dir} holds {names} annotations; choose one with --format")
    known = "; ".join(f"{importer.name}: {importer.description}" for importer in FORMATS.values())
    raise ConfigError(f"{source_dir}: no annotations of a known format found ({known})")
