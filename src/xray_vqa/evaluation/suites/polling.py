"""Balanced yes-or-no questions about categories, from any dataset with annotated items (as POPE, Li et al. 2023).

Every category that is in a scan is asked for, and as many that are not. An absent one is taken at random, among those
that are there most often in the whole set, or among those that most often lie beside what is in this scan. Only
categories that the source annotates are asked for: about any other its silence says nothing.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from xray_vqa.core.draws import Draws
from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, sha256_file, write_manifest
from xray_vqa.core.records import PairMetadata, ScanRecord, Split, VQAPair, compact
from xray_vqa.core.taxonomy import UNLISTED
from xray_vqa.dataset.layout import annotated_categories, annotations_path, read_split
from xray_vqa.errors import DatasetError

Way = Literal["random", "popular", "adversarial"]
WAYS: tuple[Way, ...] = ("random", "popular", "adversarial")
CLEAN_SHARE = 0.5
"""Of the questions answered no, at most so many are about clean bags, one each."""


def poll(records: Sequence[ScanRecord], annotated: Sequence[str], seed: int = 0) -> list[VQAPair]:
    """Return the questions: as many answered yes as no, or nearly so where a scan holds most of the categories.

    Args:
        records: Scans of one dataset.
        annotated: What its source labels at all.
        seed: Of the choices.
    """
    seen = Counter(name for record in records for name in record.present)
    beside = Counter((a, b) for record in records for a in record.present for b in record.present if a != b)
    clean = [record.image_path for record in records if not record.categories]
    num_yes = sum(len(record.present.intersection(annotated)) for record in records)
    of_clean = set(Draws(seed, "poll", "clean").order(clean)[: int(CLEAN_SHARE * num_yes)] if annotated else [])
    share_of_others = 1 - len(of_clean) / num_yes if num_yes else 0.0
    pairs: list[VQAPair] = []
    owed = 0.0
    for record in records:
        draws = Draws(seed, "poll", record.image_path)
        there = [name for name in annotated if name in record.present]
        # What stands under a label that nobody knows may be anything: nothing is denied beside it.
        absent = [] if UNLISTED in record.categories else [name for name in annotated if name not in there]
        pairs += [_pair(record, name, "") for name in there]
        owed += len(there) * share_of_others
        num_no = int(record.image_path in of_clean) if not there else round(owed)
        for _ in range(min(num_no, len(absent))):
            way = draws.pick(WAYS)
            name = _absent(way, draws.order(absent), there, seen, beside)
            absent.remove(name)
            pairs.append(_pair(record, name, way))
            owed -= bool(there)
    return pairs


def _absent(
    way: Way, absent: Sequence[str], there: Sequence[str], seen: Counter[str], beside: Counter[tuple[str, str]]
) -> str:
    if way == "popular":
        return max(absent, key=lambda name: seen[name])
    if way == "adversarial":
        return max(absent, key=lambda name: (sum(beside[other, name] for other in there), seen[name]))
    return absent[0]


def _pair(record: ScanRecord, name: str, way: str) -> VQAPair:
    there = name in record.present
    word = name if name.startswith("3D") else name.lower()
    article = "an" if word[0] in "aeiou" else "a"
    evidence = [index for index, category in enumerate(record.categories) if category == name]
    thing = word if name in ("Handcuffs", "Pliers", "Scissors") else f"{article} {word}"
    verb = "Are there" if thing == word else "Is there"
    return VQAPair(
        image_path=record.image_path,
        question=f"{verb} {thing} in the bag? Answer yes or no.",
        answer="Yes." if there else "No.",
        metadata=PairMetadata(
            image_id=record.image_id,
            question_type="presence",
            categories=sorted(record.present),
            num_categories=len(record.present),
            generated_by="template",
            model="poll",
            evidence=evidence,
            short_answer="yes" if there else "no",
            target=name,
            topic=way,
        ),
    )


def write_poll(root: Path, split: Split, output: Path, seed: int = 0) -> dict[str, int]:
    """Write the questions about a split, with a manifest that `xray-vqa evaluate` reads, and return their numbers.

    Raises:
        DatasetError: The dataset annotates nothing, or nothing can be asked about it.
    """
    found = read_split(root, split)
    annotated = annotated_categories(root)
    if found.faults:
        raise DatasetError(f"{len(found.faults)} scans cannot be read, first {found.faults[0]}")
    pairs = poll(found.records, annotated, seed)
    if not pairs:
        raise DatasetError(f"{root}: its {split} split has no item of an annotated category to ask about")
    write_jsonl(output, (compact(pair) for pair in pairs))
    yes = sum(pair.metadata.short_answer == "yes" for pair in pairs)
    counts = {"pairs": len(pairs), "yes": yes, "no": len(pairs) - yes, "scans": len({p.image_path for p in pairs})}
    write_manifest(
        output,
        make_manifest(
            "poll",
            inputs={str(annotations_path(root, split)): sha256_file(annotations_path(root, split))},
            outputs={output.name: sha256_file(output)},
            counts=counts,
            dataset_root=Path(os.path.relpath(root.resolve(), output.parent.resolve())).as_posix(),
            split=split,
            seed=seed,
        ),
    )
    return counts
