"""Pascal VOC: one XML file an image, `<object>` with `<name>` and `<bndbox>`.

Sources differ from the book, so: the image is the one with the XML file's own name, since `<filename>` is often that
of another copy; coordinates may have decimals; only an `<object>`'s own `<name>` is its label (`<owner>` and `<part>`
have one too). Coordinates are taken as they stand; the half pixel of the original's 1-based counting is below what
anyone annotates to.
"""

import hashlib
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from xray_vqa.core.records import Fault
from xray_vqa.dataset.importers.source import (
    ImageFinder,
    Source,
    SourceItem,
    SourceScan,
    split_of_folders,
    split_word,
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

    def recognises(self, source_dir: Path) -> bool:
        for path in _xml_files(source_dir):
            try:
                if _parse(path).tag == "annotation":
                    return True
            except _Refused:
                continue
        return False

    def read(self, source_dir: Path) -> Source:
        finder = ImageFinder(source_dir)
        listed = _listed_splits(source_dir)
        scans: list[SourceScan] = []
        faults: list[Fault] = []
        notices: list[Fault] = []
        digests: Counter[str] = Counter()
        digest = hashlib.sha256()
        claimed: dict[Path, Path] = {}
        for path in _xml_files(source_dir):
            try:
                tree = _parse(path)
            except _Refused as refusal:
                faults.append(Fault(path, str(refusal)))
                continue
            if tree.tag != "annotation":
                notices.append(Fault(path, f"is no VOC annotation but <{tree.tag}>; left aside"))
                continue
            digests[path.parent.relative_to(source_dir).as_posix()] += 1
            xml_name = path.relative_to(source_dir).as_posix()
            digest.update(xml_name.encode() + b"\0" + path.read_bytes())
            xml_split = split_of_folders(xml_name)
            found = finder.with_stem(path.stem, path.parent, xml_split)
            if not found and (file_name := _text(tree, "filename")):
                found = finder.named(file_name, path.parent, xml_split)
            if len(found) != 1:
                what = "missing" if not found else f"ambiguous: {', '.join(finder.name_of(f) for f in found[:3])}"
                faults.append(Fault(path, f"its image is {what}"))
                continue
            image_path = found[0]
            if image_path in claimed:
                faults.append(
                    Fault(path, f"its image {image_path.name} has an annotation before, {claimed[image_path]}")
                )
                continue
            claimed[image_path] = path
            name = finder.name_of(image_path)
            split = listed.get(image_path.stem) or split_of_folders(name) or xml_split
            scans.append(
                SourceScan(
                    image_path=image_path,
                    original_name=name,
                    annotation_path=path,
                    items=tuple(_items(tree, path, notices)),
                    split=split,
                    size_wh=_size(tree),
                )
            )
        if not digests:
            raise DatasetError(f"{source_dir}: no VOC file (XML with <annotation>) that can be read is here")
        bare = [path for path in finder.paths if path not in claimed]
        if bare:
            message = f"{len(bare)} images have no XML and are left out: silence is not a clean bag. First {bare[0]}"
            notices.append(Fault(source_dir, message))
        labels = tuple(sorted({item.label for scan in scans for item in scan.items}))
        message = (
            f"VOC has no list of categories; those that occur are taken as annotated: {', '.join(labels) or 'none'}"
        )
        notices.append(Fault(source_dir, f"{message}. --annotated overrules"))
        folders = " ".join(f"{folder}/*.xml ({count})" for folder, count in sorted(digests.items()))
        inputs = {folders: digest.hexdigest()}
        return Source(self.name, source_dir, tuple(scans), labels, tuple(faults), tuple(notices), inputs)


def _parse(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _MAX_XML_BYTES:
        raise _Refused(f"has more than {_MAX_XML_BYTES:,} bytes, no annotation of one image")
    # Safe without defusedxml: a DOCTYPE, and with it every entity, is refused before it can be expanded.
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314
    try:
        return ElementTree.fromstring(path.read_bytes(), parser=parser)  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _Refused(f"is not XML: {error}") from error


def _items(tree: ElementTree.Element, path: Path, notices: list[Fault]) -> list[SourceItem]:
    items: list[SourceItem] = []
    for index, node in enumerate(tree.findall("object")):
        label = _text(node, "name")
        if not label:
            notices.append(Fault(path, "object has no name; kept as unlisted", index))
            label = "(unnamed)"
        corners = node.find("bndbox")
        box = None
        try:
            if corners is not None:
                x0, y0, x1, y1 = (float(_text(corners, corner)) for corner in _CORNERS)
                box = (
                    x0,
                    y0,
                    round(x1 - x0, 6),
                    round(y1 - y0, 6),
                )  # 209.601 - 115.731 is 93.87, not 93.86999999999999
        except ValueError:
            corners = None
        if corners is None:
            notices.append(Fault(path, f"{label} has no box with four numbers; label kept", index))
        items.append(SourceItem(label, box, index))
    return items


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    size = tree.find("size")
    if size is None:
        return None
    try:
        width, height = (round(float(_text(size, key))) for key in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _text(node: ElementTree.Element, key: str) -> str:
    return (node.findtext(key) or "").strip()


def _listed_splits(source_dir: Path) -> dict[str, str]:
    """Return the split of each stem in `ImageSets/.../{train,val,test,trainval}.txt`; a `test` or `val` wins."""
    listed: dict[str, str] = {}
    rank = {"train": 0, "val": 1, "test": 2}
    for path in sorted(source_dir.glob("ImageSet*/**/*.txt")):
        word = split_word(path.stem)
        if path.stem.lower() not in {"train", "val", "test", "trainval"}:
            continue  # per class lists (aeroplane_train.txt) repeat the same images with 1 and -1
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            stem = line.split()[0] if line.split() else ""
            if stem and rank[word] >= rank.get(listed.get(stem, "train"), 0):
                listed[stem] = word
    return listed


def _xml_files(source_dir: Path) -> list[Path]:
    return [path for path in sorted(source_dir.rglob("*.xml")) if not path.name.startswith("._") and path.is_file()]
