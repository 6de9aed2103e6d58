"""docs/FORMATS.md: it names every format, and its example of a new one is all that a new one needs."""

import json
import re
import subprocess
import sys
from pathlib import Path

from xray_vqa.dataset.exporters import EXPORTERS
from xray_vqa.dataset.importers import FORMATS

PAGE = (Path(__file__).parents[3] / "docs/FORMATS.md").read_text(encoding="utf-8")


def rows_of(title: str) -> list[str]:
    """The first cells of the table beneath a title."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def test_every_format_has_its_row():
    assert sorted(rows_of("What is read")) == sorted(FORMATS)
    assert sorted(rows_of("What is written")) == sorted(EXPORTERS)


def test_the_example_is_a_format_as_soon_as_its_file_is_there(tmp_path, png):
    section = PAGE.split("## Adding a format\n")[1]
    [code] = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin/our_scanner.py").write_text(code)
    (tmp_path / "scans").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "scans" / name).write_bytes(png(ord(name[0])))
    rows = "scan,item,left,top,right,bottom\na.png,Gun,10,5,30,20\na.png,Knife,1,2,3,4\ngone.png,Gun,1,2,3,4\n"
    (tmp_path / "scans/boxes.csv").write_text(rows)
    program = f"""
import json, pathlib, sys
from xray_vqa.dataset import importers
importers.__path__.append({str(tmp_path / "plugin")!r})
importers.FORMATS.update((importer.name, importer) for importer in importers._importers())
folder = importers.open_folder(pathlib.Path({str(tmp_path / "scans")!r}))
importer = importers.find_importer(folder)
source = importers.read_source(folder, importer)
boxes = [[item.label, item.box_xywh] for scan in source.scans for item in scan.items]
print(json.dumps([importer.name, boxes, [f.message for f in (*source.faults, *source.notices)]]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, boxes, said = json.loads(done.stdout)
    assert (name, boxes) == ("our-scanner", [["Gun", [10, 5, 20, 15]], ["Knife", [1, 2, 2, 2]]])
    assert said == [
        "image 'gone.png' is missing",
        "1 images stand in no row of boxes.csv and are left out, first b.png: silence is no clean bag",
    ]
