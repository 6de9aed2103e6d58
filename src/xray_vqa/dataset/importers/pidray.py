"""PIDray: COCO files with names of their own (`annotations/xray_train.json`, `xray_test_{easy,hard,hidden}.json`).

The three test sets differ in how hard the item is to see, which every scan keeps as its factor `difficulty`.
"""

import re
from dataclasses import replace

from xray_vqa.dataset.importers.coco import CocoImporter
from xray_vqa.dataset.importers.source import Source, SourceFolder

_FILE_NAME = re.compile(r"(?:^|/)xray_(?:train|test_(easy|hard|hidden))\.json$")


class PidrayImporter:
    """Reads PIDray. The `categories` of its files are what it annotates."""

    name = "pidray"
    description = "PIDray, COCO files xray_train.json and xray_test_{easy,hard,hidden}.json"
    refines = "coco"

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_FILE_NAME.search(name) for name in folder.sample(".json"))

    def read(self, folder: SourceFolder) -> Source:
        source = CocoImporter().read(folder)
        scans = []
        for scan in source.scans:
            match = _FILE_NAME.search(scan.annotation_path.as_posix())
            scans.append(replace(scan, factors={"difficulty": match.group(1)}) if match and match.group(1) else scan)
        return replace(source, format=self.name, scans=tuple(scans))


IMPORTER = PidrayImporter()
