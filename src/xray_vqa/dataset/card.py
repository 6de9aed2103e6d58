"""What a dataset is, for people (Markdown) and for other programs (Croissant 1.0 JSON-LD), with digests of everything.

All of it comes from the annotation files and the manifest. Images are not opened: their digests are those of their
records, and `sha256sum -c SHA256SUMS` or `xray-vqa data verify` says whether they still hold.
"""

import hashlib
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xray_vqa.core.jsonl import replacing, write_json
from xray_vqa.core.manifest import MANIFEST_NAME, Manifest, read_manifest, sha256_file
from xray_vqa.core.records import SPLITS, ScanRecord, Split
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import annotated_categories, annotations_path, read_split
from xray_vqa.errors import DatasetError

CARD_NAME = "DATASET_CARD.md"
CROISSANT_NAME = "croissant.json"
CHECKSUMS_NAME = "SHA256SUMS"
UNKNOWN_LICENCE = "not stated"

_MIME = {".jpg": "image/jpeg", ".png": "image/png", ".bmp": "image/bmp"}
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""As the specification gives it (http://mlcommons.org/croissant/1.0, appendix 1)."""


@dataclass(slots=True)
class DatasetFacts:
    """What a card tells."""

    name: str
    manifest: Manifest
    annotated: tuple[str, ...]
    records: dict[Split, Sequence[ScanRecord]]
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the annotation files and of the manifest."""

    @property
    def everything(self) -> list[ScanRecord]:
        return [record for split in SPLITS for record in self.records[split]]

    @property
    def licences(self) -> dict[str, int]:
        return _counted(record.licence or UNKNOWN_LICENCE for record in self.everything)

    @property
    def sources(self) -> dict[str, int]:
        return _counted(record.source or "not stated" for record in self.everything)


def _counted(names: Any) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def read_facts(root: Path, name: str = "") -> DatasetFacts:
    """Return what a dataset's files say of it. Raises DatasetError where they are no sound dataset."""
    records: dict[Split, Sequence[ScanRecord]] = {}
    for split in SPLITS:
        scans = read_split(root, split)
        if scans.faults:
            raise DatasetError(f"{scans.faults[0]}; `xray-vqa data verify {root}` names every fault")
        records[split] = scans.records
    files = [root / MANIFEST_NAME, *(annotations_path(root, split) for split in SPLITS)]
    return DatasetFacts(
        name or root.resolve().name,
        read_manifest(root),
        annotated_categories(root),
        records,
        {path.relative_to(root).as_posix(): sha256_file(path) for path in files},
    )


def write_card(root: Path, name: str = "", licence: str = "", url: str = "") -> DatasetFacts:
    """Write card, Croissant file and checksums into a dataset's folder and return what they tell.

    Args:
        root: of the dataset.
        name: of the dataset; by default that of its folder.
        licence: for the Croissant file, where the records do not say one or say several.
        url: of the dataset's own page, where it has one.

    Raises:
        DatasetError: The folder is no sound dataset.
    """
    facts = read_facts(root, name)
    sums = _checksums(facts)
    with replacing(root / CHECKSUMS_NAME) as stream:
        stream.write(sums.encode())
    with replacing(root / CARD_NAME) as stream:
        stream.write(markdown_card(facts, hashlib.sha256(sums.encode()).hexdigest()).encode())
    write_json(root / CROISSANT_NAME, croissant(facts, licence, url))
    return facts


def _checksums(facts: DatasetFacts) -> str:
    digests = facts.digests | {r.image_path: r.sha256 for r in facts.everything if r.sha256}
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))


def markdown_card(facts: DatasetFacts, sums_digest: str) -> str:
    """Return the card: what is in the dataset, where it comes from, under which terms, and how to check it."""
    records = facts.everything
    manifest = facts.manifest
    lines = [f"# {facts.name}", "", _summary(facts), "", "## Scans", ""]
    lines += _table(
        ("", *SPLITS),
        [
            (label, *(f"{count(facts.records[split]):,}" for split in SPLITS))
            for label, count in (
                ("scans", len),
                ("without an item", lambda found: sum(not record.categories for record in found)),
                ("items", lambda found: sum(len(record.categories) for record in found)),
                ("items with a box", lambda found: sum(b is not None for record in found for b in record.bboxes)),
                ("groups (bags)", lambda found: len({record.group for record in found if record.group})),
                ("scans with a caption", lambda found: sum(bool(record.caption) for record in found)),
            )
        ],
    )
    lines += ["", "## Items by category", ""]
    by_split = {
        split: Counter(name for record in facts.records[split] for name in record.categories) for split in SPLITS
    }
    names = [name for name in CATEGORIES if name in facts.annotated or any(c[name] for c in by_split.values())]
    names += sorted({name for counts in by_split.values() for name in counts} - set(CATEGORIES))
    lines += _table(
        ("category", *SPLITS, "annotated"),
        [
            (name, *(f"{by_split[split][name]:,}" for split in SPLITS), "yes" if name in facts.annotated else "no")
            for name in names
        ],
    )
    silent = [name for name in CATEGORIES if name not in facts.annotated]
    if silent:
        lines += [
            "",
            f"The source says nothing of {', '.join(silent)}: a scan without such a label may hold one all the same.",
        ]
    lines += ["", "## Images", ""]
    if records:
        widths, heights = [record.width for record in records], [record.height for record in records]
        suffixes = _counted(Path(record.image_filename).suffix for record in records)
        lines += _table(
            ("", "least", "median", "most"),
            [
                (label, f"{min(values)}", f"{statistics.median(values):g}", f"{max(values)}")
                for label, values in (("width", widths), ("height", heights))
            ],
        )
        lines += ["", f"Files: {', '.join(f'{count:,} {suffix}' for suffix, count in suffixes.items())}."]
    lines += ["", "## Terms", ""]
    lines += _table(("licence", "scans"), [(_cell(text), f"{count:,}") for text, count in facts.licences.items()])
    lines += ["", "## Sources", ""]
    lines += _table(("source", "scans"), [(_cell(text), f"{count:,}") for text, count in facts.sources.items()])
    made = f"Made by `{manifest.stage}` of xray-vqa {manifest.version} on {manifest.created}"
    seed = f", seed {manifest.seed}" if manifest.seed is not None else ""
    lines += ["", f"{made}{seed}; `{MANIFEST_NAME}` has the command, the settings and the digests of what was read."]
    lines += [f"- {note}" for note in manifest.notes]
    lines += ["", "## Checksums (SHA-256)", ""]
    rows = [(path, f"`{digest}`") for path, digest in facts.digests.items()]
    lines += _table(("file", "digest"), [*rows, (f"{CHECKSUMS_NAME} (all images)", f"`{sums_digest}`")])
    without = sum(not record.sha256 for record in records)
    if without:
        lines += ["", f"{without:,} scans have no digest."]
    lines += ["", f"`sha256sum -c {CHECKSUMS_NAME}` checks every file.", ""]
    return "\n".join(lines)


def _summary(facts: DatasetFacts) -> str:
    records = facts.everything
    simulated = sum(record.is_simulated for record in records)
    kind = "simulated " if records and simulated == len(records) else ""
    text = f"{len(records):,} {kind}X-ray scans of bags, annotated for {len(facts.annotated)} categories of items."
    return f"{text} {simulated:,} of them are simulated in whole or in part." if simulated and not kind else text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def croissant(facts: DatasetFacts, licence: str = "", url: str = "") -> dict[str, Any]:
    """Return a dataset as Croissant 1.0 JSON-LD: its files, and the records in its annotation files, field by field."""
    known = [text for text in facts.licences if text != UNKNOWN_LICENCE]
    about: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "description": f"{_summary(facts)} Categories: {', '.join(facts.annotated)}.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": licence or (known[0] if len(known) == 1 else known) or UNKNOWN_LICENCE,
        "url": url or f"urn:sha256:{facts.digests[MANIFEST_NAME]}",
        "version": "1.0.0",
        "datePublished": facts.manifest.created[:10],
        "citeAs": f"{facts.name}, {', '.join(facts.sources)}",
        "creator": {"@type": "Organization", "name": ", ".join(facts.sources) or facts.name},
        "distribution": [],
        "recordSet": [],
    }
    for split in SPLITS:
        if not facts.records[split]:
            continue
        path = f"{split}/annotations.json"
        about["distribution"].append(
            {
                "@type": "cr:FileObject",
                "@id": path,
                "name": path,
                "contentUrl": path,
                "encodingFormat": "application/json",
                "sha256": facts.digests[path],
            }
        )
        for suffix in sorted({Path(record.image_filename).suffix for record in facts.records[split]}):
            about["distribution"].append(
                {
                    "@type": "cr:FileSet",
                    "@id": f"{split}-images{suffix}",
                    "name": f"{split}-images{suffix}",
                    "encodingFormat": _MIME.get(suffix, "application/octet-stream"),
                    "includes": f"{split}/images/*{suffix}",
                }
            )
        about["recordSet"].append(_record_set(split, path, facts.records[split]))
    return about


def _record_set(split: Split, path: str, records: Sequence[ScanRecord]) -> dict[str, Any]:
    fields = [
        ("image_path", "sc:Text", "Path of the image, relative to the dataset."),
        ("width", "sc:Integer", "Pixels."),
        ("height", "sc:Integer", "Pixels."),
        ("sha256", "sc:Text", "Of the image file."),
        ("group", "sc:Text", "Scans of one bag share it."),
        ("categories", "sc:Text", "One for each annotated item; empty for a bag without any."),
        ("bboxes", "cr:BoundingBox", "[x, y, width, height] in pixels of the item of the same place; null if unknown."),
        ("caption", "sc:Text", "What the source says of the scan."),
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"{len(records):,} scans.",
        "key": {"@id": f"{split}/image_path"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{split}/{name}",
                "name": f"{split}/{name}",
                "description": description,
                "dataType": data_type,
                **({"repeated": True} if name in ("categories", "bboxes") else {}),
                "source": {"fileObject": {"@id": path}, "extract": {"jsonPath": f"$[*].{name}"}},
            }
            for name, data_type, description in fields
        ],
    }
