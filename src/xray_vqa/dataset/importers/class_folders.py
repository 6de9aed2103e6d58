"""Images in folders that are named like what is in them, taken at their word because the user says so.

Never recognised by itself: folder names lie (`images.py`).
"""

from xray_vqa.core.taxonomy import is_clean_label
from xray_vqa.dataset.importers.source import TREE_WORDS, Reading, Source, SourceFolder, SourceItem, split_word
from xray_vqa.errors import DatasetError


class ClassFoldersImporter:
    """Takes the innermost folder's name as the label of each image, without a box."""

    name = "class-folders"
    description = "images in folders named like their item (only when asked for)"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        return False

    def read(self, folder: SourceFolder) -> Source:
        reading = Reading(folder, self.name)
        labels: dict[str, None] = {}
        for image in folder.images.names:
            label = next((part for part in reversed(image.split("/")[:-1]) if _may_be_item(part)), "")
            if not label:
                reading.fault(image, "lies in no folder that is named like an item; left out")
                continue
            labels[label] = None
            reading.add(image, image, items=(SourceItem(label, None),))
        if not labels:
            raise DatasetError(f"{folder.root}: no image lies in a folder that is named like an item")
        items = [label for label in labels if not is_clean_label(label)]
        message = f"{len(reading.scans)} scans have their folder's name as label, without a box: {', '.join(labels)}"
        reading.notice(
            "", f"{message}. A scan in one folder is taken to hold nothing of the others; --annotated overrules"
        )
        return reading.source(items)


IMPORTER = ClassFoldersImporter()


def _may_be_item(folder_name: str) -> bool:
    return not split_word(folder_name) and folder_name.lower() not in TREE_WORDS
