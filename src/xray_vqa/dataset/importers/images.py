"""Images and nothing else. What folders are called is no annotation: SIXray copies keep negatives in `test_positiv/`.

Nothing is taken as annotated, so nothing is ever taught as absent, unless `--annotated` says what somebody has looked
for. A format of its own (`class-folders`) takes folder names as labels.
"""

import posixpath
import re

from xray_vqa.dataset.importers.source import IMAGE_SUFFIXES, Reading, Source, SourceFolder
from xray_vqa.errors import DatasetError

_NO_ANNOTATIONS = re.compile(
    r"(?:readme|licen[cs]e|notice|citation|thumbs\.db|desktop\.ini|\.ds_store|\.git)", re.IGNORECASE
)
_NO_ANNOTATION_SUFFIXES = frozenset({".md", ".pdf", ".html", ".db", ".ini"})


class ImagesImporter:
    """Takes every image as a scan of which nothing is known."""

    name = "images"
    description = "images without annotations"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        """Only where there is nothing else that could be an annotation: silence would become a clean bag."""
        return bool(folder.images.names) and all(map(_is_no_annotation, folder.names))

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        for image in folder.images.names:
            reading.add(image, image)
        if not reading.scans:
            raise DatasetError(f"{folder.root}: no image is here ({', '.join(sorted(IMAGE_SUFFIXES))})")
        message = (
            "nothing says what is in these scans, so nothing is taken as annotated; if somebody has looked and found "
        )
        reading.notice("", f"{message}nothing, say what for with --annotated Gun,Knife")
        folders = sorted({posixpath.dirname(image) or "." for image in folder.images.names})
        if len(folders) > 1:
            message = f"the names of {len(folders)} folders ({', '.join(folders[:5])}) are not taken as labels; "
            reading.notice("", f"{message}--format class-folders takes them")
        return reading.source(())


IMPORTER = ImagesImporter()


def _is_no_annotation(name: str) -> bool:
    base = posixpath.basename(name)
    suffix = posixpath.splitext(base)[1].lower()
    return suffix in IMAGE_SUFFIXES | _NO_ANNOTATION_SUFFIXES or bool(_NO_ANNOTATIONS.match(base))
