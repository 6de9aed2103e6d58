"""Dividing a dataset anew: never through a bag, and with every category on both sides as far as its bags allow.

What belongs together is found, not believed: scans of one group, scans with the same bytes, views of one bag, and scans
that look alike. Such a cluster goes to one side as a whole. Clusters are handed out rarest category first, each to the
side that lacks most of it, so that a category with few bags is not left to chance.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from xray_vqa.core.jsonl import disk_errors, flush_to_disk, write_json
from xray_vqa.core.manifest import MANIFEST_NAME, make_manifest, read_manifest, sha256_file, write_manifest
from xray_vqa.core.records import SPLITS, ScanRecord, Split
from xray_vqa.core.workers import open_runner
from xray_vqa.dataset.copies import find_near_copies
from xray_vqa.dataset.layout import annotated_categories, annotations_path, read_split, write_split
from xray_vqa.dataset.storing import Errand, in_turns, store_chunk
from xray_vqa.dataset.verify import Looks, look_at_images
from xray_vqa.errors import ConfigError, DatasetError, IntegrityError

REPORT_NAME = "split_report.json"
CLEAN = "clean"
"""The stratum of bags without an item."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How a dataset is divided."""

    test_share: float = 0.2
    """Of the scans."""
    seed: int = 0
    near_copies: bool = True
    """Keep scans that look alike on one side."""


@dataclass(slots=True)
class SplitReport:
    """What a division came to."""

    root: Path
    clusters: int = 0
    """Things that were handed out whole."""
    largest: int = 0
    """Scans in the largest of them."""
    joined_by_bytes: int = 0
    joined_by_looks: int = 0
    """Pairs of scans in different groups that were put together for what they show."""
    counts: dict[Split, int] = field(default_factory=dict)
    strata: dict[str, dict[Split, int]] = field(default_factory=dict)
    """Scans that have a category, by side; `clean` for those without any."""
    one_sided: list[str] = field(default_factory=list)
    """Categories that could not be on both sides, since all of their scans hang together."""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "root"}


def split_dataset(source: Path, root: Path, options: SplitOptions | None = None, *, workers: int = 1) -> SplitReport:
    """Write a dataset under `root` that has the scans of `source` divided anew, and return how.

    The same source, options and seed give the same files. Images are copied byte for byte; the source stays as it is.

    Raises:
        ConfigError: The options, or `root`, cannot be used.
        DatasetError: The source is no sound dataset; `xray-vqa data verify` says what is wrong.
        IntegrityError: A leak is left. It cannot happen, which is why it is looked for.
        Incomplete: The disk is full, or a worker process died; the same command goes on.
    """
    options = options or SplitOptions()
    if not 0 < options.test_share < 1:
        raise ConfigError(f"--test-share {options.test_share}: give a share between 0 and 1")
    inputs = {f"{split}/annotations.json": sha256_file(annotations_path(source, split)) for split in SPLITS}
    config = {
        "origin": str(source.resolve()),
        "test_share": options.test_share,
        "near_copies": options.near_copies,
    }
    _check_root(source, root, config["origin"])
    annotated = annotated_categories(source)
    records = _sound_records(source)
    looks = look_at_images(source, records, workers)
    if looks.remarks:
        place, _, message = min(looks.remarks)
        raise DatasetError(
            f"{source}: {len(looks.remarks)} images cannot be used, first {records[place].image_path}: {message}; "
            f"`xray-vqa data verify {source}` names them all"
        )
    report = SplitReport(root)
    clusters = _clusters(records, looks, options, report)
    in_test = divide([strata_of(records, cluster) for cluster in clusters], options.test_share, options.seed)
    sides: dict[int, Split] = {
        place: "test" if number in in_test else "train" for number, cluster in enumerate(clusters) for place in cluster
    }
    renumbered, errands = _renumber(source, root, records, sides, looks, clusters)
    _summarise(renumbered, report)
    with disk_errors(root):
        _write(root, renumbered, errands, report, workers)
        write_manifest(
            root,
            make_manifest(
                "split",
                config=config,
                inputs=inputs,
                outputs={f"{split}/annotations.json": sha256_file(annotations_path(root, split)) for split in SPLITS},
                counts={**report.counts, "clusters": report.clusters},
                seed=options.seed,
                annotated_categories=list(annotated),
                notes=[f"how it was divided: {REPORT_NAME}"],
            ),
        )
    return report


def divide(strata: Sequence[Mapping[str, int]], test_share: float, seed: int) -> set[int]:
    """Return which clusters go to test, by their place in the list.

    `strata[i]` counts the scans of cluster i by category, under "" all of them. After Sechidis et al. (2011), with
    whole clusters instead of single examples: of the stratum with the fewest scans left, the largest cluster goes to
    the side that lacks most of that stratum, then of all scans. Ties fall by a hash of seed and place.
    """
    total: Counter[str] = Counter()
    for counts in strata:
        total.update(counts)
    shares = {"test": test_share, "train": 1 - test_share}
    wanted = {side: {name: share * count for name, count in total.items()} for side, share in shares.items()}
    luck = [hashlib.sha256(f"{seed}:{place}".encode()).digest() for place in range(len(strata))]
    by_stratum: dict[str, list[int]] = defaultdict(list)
    for place, counts in enumerate(strata):
        for name in counts:
            by_stratum[name].append(place)
    left, remaining = Counter(total), set(range(len(strata)))
    in_test: set[int] = set()
    while remaining:
        name = min((each for each in left if each and left[each] > 0), key=lambda each: (left[each], each), default="")
        places = [place for place in by_stratum[name] if place in remaining]
        for place in sorted(places, key=lambda place: (-strata[place][name], luck[place])):
            side = max(shares, key=lambda side: (wanted[side][name], wanted[side][""], side))
            if side == "test":
                in_test.add(place)
            for each, count in strata[place].items():
                wanted[side][each] -= count
                left[each] -= count
            remaining.discard(place)
        left[name] = 0
    return in_test


def strata_of(records: Sequence[ScanRecord], cluster: Sequence[int]) -> dict[str, int]:
    """Count a cluster's scans by category, `clean` for those without an item, and under "" all of them."""
    counts: Counter[str] = Counter({"": len(cluster)})
    for place in cluster:
        counts.update(set(records[place].categories) or {CLEAN})
    return dict(counts)


def _check_root(source: Path, root: Path, origin: str) -> None:
    target, source_dir = root.resolve(), source.resolve()
    if target == source_dir or source_dir in target.parents or target in source_dir.parents:
        raise ConfigError(f"{root} and {source} lie in one another; choose another --output-dir")
    if (root / MANIFEST_NAME).is_file():
        old = read_manifest(root)
        if old.stage != "split" or old.config.get("origin") != origin:
            raise ConfigError(f"{root} holds another dataset (made by `{old.stage}`); choose another --output-dir")
    elif any((root / split).exists() for split in SPLITS) and not (root / REPORT_NAME).is_file():
        raise ConfigError(f"{root} holds train/ or test/ of unknown origin; choose another --output-dir")


def _sound_records(source: Path) -> list[ScanRecord]:
    records: list[ScanRecord] = []
    for split in SPLITS:
        scans = read_split(source, split)
        if scans.faults:
            raise DatasetError(f"{scans.faults[0]}; mend it before the dataset is divided")
        records.extend(scans.records)
    if not records:
        raise DatasetError(f"{source}: holds no scans")
    return records


class _Clusters:
    """Union-find over places in a list."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, place: int) -> int:
        while self._parent[place] != place:
            self._parent[place] = self._parent[self._parent[place]]
            place = self._parent[place]
        return place

    def join(self, one: int, other: int) -> bool:
        """Put two together and return whether they were apart."""
        one, other = self.find(one), self.find(other)
        self._parent[max(one, other)] = min(one, other)
        return one != other

    def members(self) -> list[list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for place in range(len(self._parent)):
            found[self.find(place)].append(place)
        return list(found.values())


def _clusters(
    records: Sequence[ScanRecord], looks: Looks, options: SplitOptions, report: SplitReport
) -> list[list[int]]:
    clusters = _Clusters(len(records))
    by_path = {record.image_path: place for place, record in enumerate(records)}
    _join_equal(clusters, (record.group for record in records))
    for place, record in enumerate(records):
        for view in record.views or ():
            clusters.join(place, by_path.get(view, place))
    report.joined_by_bytes = _join_equal(clusters, looks.digests)
    if options.near_copies:
        copies = find_near_copies(looks.hashes, looks.thumbnails)
        pairs = zip(copies.first.tolist(), copies.second.tolist(), strict=True)
        report.joined_by_looks = sum(clusters.join(first, second) for first, second in pairs)
    members = clusters.members()
    report.clusters, report.largest = len(members), max(map(len, members))
    return members


def _join_equal(clusters: _Clusters, names: Iterable[str]) -> int:
    first_of: dict[str, int] = {}
    return sum(clusters.join(first_of.setdefault(name, place), place) for place, name in enumerate(names) if name)


def _renumber(
    source: Path,
    root: Path,
    records: Sequence[ScanRecord],
    sides: Mapping[int, Split],
    looks: Looks,
    clusters: Sequence[Sequence[int]],
) -> tuple[dict[Split, list[ScanRecord]], dict[Split, list[Errand]]]:
    """Return the records under their new numbers, and which image goes where. A cluster becomes one group."""
    group_of: dict[int, str] = {}
    for cluster in clusters:
        names = sorted({records[place].group for place in cluster} - {""})
        name = names[0] if names else f"like-{looks.digests[cluster[0]][:12]}" if len(cluster) > 1 else ""
        group_of |= dict.fromkeys(cluster, name)
    paths: dict[str, str] = {}
    order: dict[Split, list[int]] = {split: [p for p in range(len(records)) if sides[p] == split] for split in SPLITS}
    for split, places in order.items():
        for number, place in enumerate(places):
            old = records[place]
            paths[old.image_path] = f"{split}/images/{number:06d}{Path(old.image_filename).suffix}"
    renumbered: dict[Split, list[ScanRecord]] = {split: [] for split in SPLITS}
    errands: dict[Split, list[Errand]] = {split: [] for split in SPLITS}
    for split, places in order.items():
        for number, place in enumerate(places):
            old = records[place]
            path = paths[old.image_path]
            changes: dict[str, Any] = {
                "image_id": number,
                "image_filename": Path(path).name,
                "image_path": path,
                "group": group_of[place],
                "sha256": looks.digests[place],
            }
            if old.views:
                changes["views"] = [paths.get(view, view) for view in old.views]
            renumbered[split].append(old.model_copy(update=changes))
            errands[split].append(Errand(str(source / old.image_path), str(root / path), looks.digests[place]))
    return renumbered, errands


def _summarise(renumbered: Mapping[Split, Sequence[ScanRecord]], report: SplitReport) -> None:
    """Count both sides, and look once more whether anything stands on both."""
    by_side = {split: Counter[str]() for split in SPLITS}
    marks: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for split, records in renumbered.items():
        report.counts[split] = len(records)
        for record in records:
            by_side[split].update(set(record.categories) or {CLEAN})
            marks[split] |= {record.sha256, record.group} - {""}
    leaks = marks["train"] & marks["test"]
    if leaks:
        raise IntegrityError(f"{report.root}: {len(leaks)} groups or images would stand on both sides; report this")
    names = sorted({name for counts in by_side.values() for name in counts})
    report.strata = {name: {split: by_side[split][name] for split in SPLITS} for name in names}
    report.one_sided = [name for name, counts in report.strata.items() if not all(counts.values())]


def _write(
    root: Path,
    renumbered: Mapping[Split, Sequence[ScanRecord]],
    errands: Mapping[Split, Sequence[Errand]],
    report: SplitReport,
    workers: int,
) -> None:
    write_json(root / REPORT_NAME, report.as_json())
    (root / MANIFEST_NAME).unlink(missing_ok=True)
    for split in SPLITS:
        annotations_path(root, split).unlink(missing_ok=True)  # no reader may meet old entries beside new images
        (root / split / "images").mkdir(parents=True, exist_ok=True)
    jobs = in_turns(list(errands.values()))
    with (
        open_runner(workers, len(jobs), root, memory_mb=120) as run,
        tqdm(total=sum(map(len, jobs)), desc="storing", unit="scan", disable=None) as progress,
    ):
        for chunk, _ in run(store_chunk, jobs):
            progress.update(len(chunk))
    flush_to_disk(root)
    for split in SPLITS:
        wanted = {record.image_filename for record in renumbered[split]}
        for path in (root / split / "images").iterdir():
            if path.name not in wanted:
                path.unlink()  # of an earlier division of the same source
        write_split(root, split, renumbered[split])
