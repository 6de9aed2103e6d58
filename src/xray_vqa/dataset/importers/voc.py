"""Pascal VOC: one XML file an image, `<object>` with `<name>` and `<bndbox>`.

Sources differ from the book, so: the image is the one with the XML file's own name, since `<filename>` is often that
of another copy; coordinates may have decimals; only an `<object>`'s own `<name>` is its label (`<owner>` and `<part>`
have one too). Coordinates are taken as they stand; the half pixel of the original's 1-based counting is below what
anyone annotates to.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from xray_vqa.dataset.importers.source import (
    Reading,
    Source,
    SourceFolder,
    SourceItem,
    box_of_corners,
    listed_splits,
    number_pair,
    split_of_folders,
)
from xray_vqa.errors import DatasetError

_MAX_XML_BYTES = 4 * 2**20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Refused(Exception):
    """The file is no XML that we read."""


class _NoDoctype(ElementTree.TreeBuilder):
    """A tree without entities: a DOCTYPE is what declares them, and no annotation needs one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _Refused("has a DOCTYPE, which annotation files do not need and attacks do")


class VocImporter:
    """Reads Pascal VOC. The format has no list of categories: those that occur are what is annotated."""

    name = "voc"
    description = "Pascal VOC, one XML file an image"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        for name in folder.sample(".xml"):
            try:
                if _parse(folder.path(name)).tag == "annotation":
                    return True
            except _Refused:
                continue
        return False

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        read_xml_files(reading)
        if not reading.num_seen:
            raise DatasetError(f"{folder.root}: no VOC file (XML with <annotation>) that can be read is here")
        reading.name_left_over("have no XML")
        return reading.source(reading.labels_that_occur("VOC has"))


IMPORTER = VocImporter()


def read_xml_files(reading: Reading) -> None:
    """Read every VOC file of a folder."""
    folder = reading.folder
    listed = listed_splits(folder)
    for name in folder.with_suffix(".xml"):
        try:
            tree = _parse(folder.path(name))
        except _Refused as refusal:
            reading.fault(name, str(refusal))
            continue
        if tree.tag != "annotation":
            reading.notice(name, f"is no VOC annotation but <{tree.tag}>; left aside")
            continue
        reading.see(name, folder.path(name).read_bytes())
        split = split_of_folders(name)
        file_name = _text(tree, "filename")
        found = folder.images.with_stem(folder.path(name).stem, name, split)
        if not found and file_name:
            found = folder.images.named(file_name, name, split)
        image = reading.claim(found, name)
        if image is None:
            continue
        reading.add(
            image,
            name,
            items=tuple(_items(tree, name, reading)),
            split=listed.get(Path(image).stem) or split_of_folders(image) or split,
            size_wh=_size(tree),
            also_called=file_name,
        )


def _parse(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _MAX_XML_BYTES:
        raise _Refused(f"has more than {_MAX_XML_BYTES:,} bytes, no annotation of one image")
    # Safe without defusedxml: a DOCTYPE, and with it every entity, is refused before it can be expanded.
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314
    try:
        return ElementTree.fromstring(path.read_bytes(), parser=parser)  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _Refused(f"is not XML: {error}") from error


def _items(tree: ElementTree.Element, name: str, reading: Reading) -> list[SourceItem]:
    items: list[SourceItem] = []
    for index, node in enumerate(tree.findall("object")):
        label = _text(node, "name")
        if not label:
            reading.notice(name, "object has no name; kept as unlisted", index)
            label = "(unnamed)"
        corners = node.find("bndbox")
        box = None
        try:
            if corners is not None:
                x0, y0, x1, y1 = (float(_text(corners, corner)) for corner in _CORNERS)
                box = box_of_corners(x0, y0, x1, y1)
        except ValueError:
            corners = None
        if corners is None:
            reading.notice(name, f"{label} has no box with four numbers; label kept", index)
        items.append(SourceItem(label, box, index))
    return items


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    size = tree.find("size")
    return None if size is None else number_pair(_text(size, "width"), _text(size, "height"))


def _text(node: ElementTree.Element, key: str) -> str:
    return (node.findtext(key) or "").strip()
