"""STCray: from the hub or from a copy on disk to what an importer reads.

On the hub it is two RAR archives behind a login, each a tree of class folders:

    STCray_TrainSet/Images/Class 10_Battery/Battery5_B2_L4A_C1_Loc1_phi1_th1_3.jpg
    STCray_TrainSet/Json_BB/Class 10_Battery/<same name>.json      Labelme rectangles
    STCray_TrainSet/Json/...                                       Labelme polygons
    STCray_TrainSet/Captions/Class 10_Battery/<same name>.txt

Names, sizes and digests of the archives are those of February 2026; the meaning of the letters in a file name is read
off the authors' protocol figure.
"""

import hashlib
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from xray_vqa.core.jsonl import first_error
from xray_vqa.core.manifest import sha256_file
from xray_vqa.core.records import Fault, Split
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, canonical_category, is_clean_label
from xray_vqa.dataset.importers.source import IMAGE_SUFFIXES, Source, SourceItem, SourceScan, split_word
from xray_vqa.errors import ConfigError, DatasetError, Incomplete, IntegrityError

REPO_ID = "Naoufel555/STCray-Dataset"
PAGE = f"https://huggingface.co/datasets/{REPO_ID}"
PROBE_TIMEOUT_S = 15.0


class Archive(NamedTuple):
    """One file on the hub."""

    file_name: str
    split: Split
    num_bytes: int
    sha256: str


ARCHIVES = (
    Archive("STCray_TrainSet.rar", "train", 1_094_236_470,
            "d003765c0e17775aaebd0c4ce873b7ba493df5a746b59f4b8d34194bf0b5638c"),
    Archive("STCray_TestSet.rar", "test", 980_265_948,
            "9379a5ad5b292d1024e9155c6666c494b9a3ae80cb0ce91e90215daf46885c65"),
)  # fmt: skip

_UNPACKERS: tuple[tuple[str, Callable[[Path, Path], list[str]]], ...] = (
    ("bsdtar", lambda archive, target: ["-x", "-f", str(archive), "-C", str(target)]),
    ("unrar", lambda archive, target: ["x", "-o+", "-idq", str(archive), f"{target}/"]),
    ("unar", lambda archive, target: ["-q", "-f", "-D", "-o", str(target), str(archive)]),
    ("7zz", lambda archive, target: ["x", "-y", "-bd", f"-o{target}", str(archive)]),
    ("7z", lambda archive, target: ["x", "-y", "-bd", f"-o{target}", str(archive)]),
)

_ELSEWHERE = (
    f"Or fetch {' and '.join(archive.file_name for archive in ARCHIVES)} from {PAGE} on another machine and give their "
    "folder with --source DIR; or go on without STCray: `xray-vqa data synth --output-dir DIR`"
)


# --- the hub -----------------------------------------------------------------------------------------------------


def fetch_archives() -> list[Path]:
    """Return the archives' paths in the hub's cache, after fetching what is missing of them.

    A download that stopped goes on where it was. The first question to the hub is bounded in time, so that a machine
    without network hears of it within seconds.

    Raises:
        Incomplete: The hub cannot be reached, or the connection broke.
        ConfigError: No login, or the conditions on the data set's page are not accepted.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage] - httpx's or httpx2's

    cached = [try_to_load_from_cache(REPO_ID, one.file_name, repo_type="dataset") for one in ARCHIVES]
    if all(isinstance(path, str) for path in cached):
        return [Path(str(path)) for path in cached]
    _ask_for_access()
    paths: list[Path] = []
    for archive in ARCHIVES:
        try:
            paths.append(Path(hf_hub_download(REPO_ID, archive.file_name, repo_type="dataset")))
        except (OSError, HTTPError) as error:
            raise _hub_error(error) from error
    return paths


def _ask_for_access() -> None:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    failures: list[Exception] = []

    def ask() -> None:
        try:
            HfApi().auth_check(REPO_ID, repo_type="dataset")
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits, which tells the kinds apart
            failures.append(error)

    # A thread, since no timeout of a request bounds the time that resolving a name takes.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_TIMEOUT_S)
    if asking.is_alive():
        raise Incomplete(
            f"{constants.ENDPOINT} did not answer within {PROBE_TIMEOUT_S:.0f} s. With network, the same command goes "
            f"on. {_ELSEWHERE}"
        )
    for error in failures:
        is_mirror_without_the_question = (
            isinstance(error, HfHubHTTPError)
            and not isinstance(error, RepositoryNotFoundError)
            and error.response.status_code == 404
        )
        if not is_mirror_without_the_question:
            raise _hub_error(error) from error


def _hub_error(error: Exception) -> Exception:
    """Return the error of ours that tells the user what to do about one of the hub's."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - httpx's or httpx2's, by version
        RepositoryNotFoundError,
    )

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError | RepositoryNotFoundError) or status in (401, 403):
        return ConfigError(
            f"STCray asks for a login: accept its conditions at {PAGE}, then run `hf auth login` or set HF_TOKEN, and "
            f"run this again. {_ELSEWHERE}"
        )
    if isinstance(error, OSError | HTTPError):
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        return Incomplete(
            f"{constants.ENDPOINT} cannot be reached or broke off ({reason}). With network (a mirror is set by "
            f"HF_ENDPOINT), the same command goes on. {_ELSEWHERE}"
        )
    return error


# --- archives ----------------------------------------------------------------------------------------------------


def find_archives(folder: Path) -> list[Path]:
    """Return the RAR archives of the train and the test set in a folder."""
    wanted = {archive.file_name.lower() for archive in ARCHIVES}
    return [path for path in sorted(folder.glob("*.[rR][aA][rR]")) if path.name.lower() in wanted]


def check_archive(path: Path) -> None:
    """Raise IntegrityError where an archive is not the one whose digest is known."""
    known = next((archive for archive in ARCHIVES if archive.file_name.lower() == path.name.lower()), None)
    if known is None:
        return
    if path.stat().st_size != known.num_bytes:
        found = f"has {path.stat().st_size:,} bytes instead of {known.num_bytes:,}"
    elif (digest := sha256_file(path)) != known.sha256:
        found = f"has the SHA-256 {digest} instead of {known.sha256}"
    else:
        return
    raise IntegrityError(
        f"{path} {found}: it is damaged, or the authors have changed it. Fetch it again, or pass --any-version if you "
        "trust it"
    )


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive into a folder with the first tool of this machine that can. A finished one is left alone.

    Raises:
        ConfigError: There is no tool for RAR archives here.
        DatasetError: None of the tools could read it.
    """
    marker = target / ".complete"
    stamp = f"{archive.name} {archive.stat().st_size}\n"
    if marker.is_file() and marker.read_text() == stamp:
        return
    tools = [(path, arguments) for name, arguments in _UNPACKERS if (path := shutil.which(name))]
    if not tools:
        raise ConfigError(
            f"{archive} is a RAR archive and this machine has none of {', '.join(name for name, _ in _UNPACKERS)}; "
            "install one (Debian, Ubuntu: `apt-get install libarchive-tools`), or unpack it elsewhere and give the "
            "folder with --source DIR"
        )
    said = ""
    for tool, arguments in tools:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        # absolute, not resolved: the hub's cache is links to files without a suffix, which unrar would not open
        done = subprocess.run(  # noqa: S603 - a tool by its full path, paths as arguments, no shell
            [tool, *arguments(archive.absolute(), target.absolute())], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            marker.write_text(stamp)
            return
        said = f"{Path(tool).name} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}"
    shutil.rmtree(target, ignore_errors=True)
    raise DatasetError(f"{archive} cannot be unpacked; {said}")


# --- the tree ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file name of STCray says."""

    threat_item: str
    bag: int | None = None
    clutter_level: int | None = None
    clutter_part: str = ""
    concealment: int | None = None
    location: int | None = None
    phi: int | None = None
    theta: int | None = None
    frame: int | None = None

    def factors(self) -> dict[str, Any]:
        """Return what is known, as a record's `factors`."""
        pairs = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return {name: value for name, value in pairs if value not in (None, "")}


_PARTS = {
    "bag": re.compile(r"B(\d+)", re.IGNORECASE),
    "clutter_level": re.compile(r"L(\d+)([A-Za-z]?)", re.IGNORECASE),
    "concealment": re.compile(r"C(\d+)", re.IGNORECASE),
    "location": re.compile(r"Loc(\d+)", re.IGNORECASE),
    "phi": re.compile(r"phi(\d+)", re.IGNORECASE),
    "theta": re.compile(r"th(?:eta)?(\d+)", re.IGNORECASE),
    "frame": re.compile(r"(\d+)"),
}


def parse_file_name(stem: str) -> FileName | None:
    """Return what `Battery5_B2_L4A_C1_Loc1_phi1_th1_3` says, or None where a name does not follow the grammar.

    What stands before the bag is the threat item; parts may be missing behind it, but none may be unknown.
    """
    parts = stem.split("_")
    at = next((i for i, part in enumerate(parts) if i > 0 and _PARTS["bag"].fullmatch(part)), None)
    if at is None:
        return None
    values: dict[str, Any] = {}
    for part in parts[at:]:
        for name, pattern in _PARTS.items():
            if match := pattern.fullmatch(part):
                if name in values:
                    return None
                values[name] = int(match.group(1))
                if name == "clutter_level" and match.group(2):
                    values["clutter_part"] = match.group(2).upper()
                break
        else:
            return None
    return FileName(threat_item="_".join(parts[:at]), **values)


def class_label(folder: str) -> str:
    """Return the label in a class folder's name: `Class 10_Battery` and `Class 010 - Battery` give `Battery`."""
    return re.sub(r"^class\s*\d+[\s_\-]+", "", folder.strip(), flags=re.IGNORECASE).strip()


def read_stcray(folders: Sequence[Path], max_samples: int | None = None) -> Source:
    """Return what the unpacked train and test sets beneath some folders say.

    Args:
        folders: Where to look for `STCray_TrainSet` and `STCray_TestSet`, at most two levels deep; the first counts.
        max_samples: Read only so many scans in all, always the same ones, drawn evenly from splits and classes.

    Raises:
        ConfigError: Neither set is there.
    """
    sets: dict[Split, Path] = {}
    for split, folder in _find_sets(folders):
        sets.setdefault(split, folder)
    if not sets:
        places = ", ".join(map(str, folders))
        raise ConfigError(
            f"{places}: neither STCray_TrainSet/Images nor STCray_TestSet/Images is here, and no "
            f"{' or '.join(archive.file_name for archive in ARCHIVES)}; give the folder that holds them"
        )
    notices = [
        Fault(folders[0], f"the {split} set is not here; its split stays empty")
        for split in ("train", "test")
        if split not in sets
    ]
    faults: list[Fault] = []
    readers = {split: _SetReader(split, folder, faults, notices) for split, folder in sets.items()}
    found = [(reader, path) for reader in readers.values() for path in _images(reader.folder)]
    if max_samples is not None and max_samples < len(found):
        chosen = _spread([reader.name_of(path) for reader, path in found], max_samples)
        notices.append(Fault(folders[0], f"{max_samples} of {len(found)} scans are taken, as --max-samples says"))
        found = [(reader, path) for reader, path in found if reader.name_of(path) in chosen]
    digest = hashlib.sha256()
    scans: list[SourceScan] = []
    for reader, path in tqdm(found, desc="reading annotations", unit="scan", disable=None):
        scan = reader.scan(path, digest.update)
        if scan is not None:
            scans.append(scan)
    for reader in readers.values():
        reader.sum_up()
    inputs = {"annotations of all scans read": digest.hexdigest()}
    return Source("stcray", folders[0], tuple(scans), CATEGORIES, tuple(faults), tuple(notices), inputs)


def _find_sets(folders: Sequence[Path]) -> Iterator[tuple[Split, Path]]:
    for folder in folders:
        for pattern in ("", "*", "*/*"):
            for path in sorted(folder.glob(pattern)) if pattern else [folder]:
                split = split_word(path.name)
                if split in ("train", "test") and path.is_dir() and _child(path, "images") is not None:
                    yield split, path


def _child(folder: Path, name: str) -> Path | None:
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == name and path.is_dir()), None)


def _images(set_dir: Path) -> list[Path]:
    images_dir = _child(set_dir, "images")
    return [
        path
        for path in (sorted(images_dir.rglob("*")) if images_dir else ())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("._") and path.is_file()
    ]


def _spread(names: Sequence[str], limit: int) -> set[str]:
    return set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:limit])


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Shape(_Lenient):
    label: str
    points: list[tuple[float, float]]


class _Labelme(_Lenient):
    shapes: list[_Shape]
    imageWidth: int | None = None  # noqa: N815 - Labelme's own names
    imageHeight: int | None = None  # noqa: N815


class _SetReader:
    """Reads the scans of one set and remembers what many of them have in common, to say it once."""

    def __init__(self, split: Split, folder: Path, faults: list[Fault], notices: list[Fault]) -> None:
        self.split, self.folder, self.faults, self.notices = split, folder, faults, notices
        self.boxes, self.polygons, self.captions = (
            self._class_folders(name) for name in ("json_bb", "json", "captions")
        )
        self.num_by_folder_only = self.num_strange_names = self.num_from_polygons = 0

    def _class_folders(self, name: str) -> dict[str, Path]:
        """Return the class folders of one kind by label, since their numbers are not padded alike everywhere."""
        parent = _child(self.folder, name)
        return {class_label(path.name).lower(): path for path in sorted(parent.iterdir())} if parent else {}

    def name_of(self, image_path: Path) -> str:
        """Return an image's path as it stands in its archive."""
        return image_path.relative_to(self.folder.parent).as_posix()

    def scan(self, image_path: Path, seen: Callable[[bytes], None]) -> SourceScan | None:
        """Return one scan, or None where nothing says what is in it; the bytes of its annotations go to `seen`."""
        label = class_label(image_path.parent.name)
        name = self.name_of(image_path)
        seen(name.encode() + b"\0")
        items, size_wh, annotation_path = self._annotation(image_path, label, seen)
        if items is None:
            if is_clean_label(label):
                items = [SourceItem(label, None)]
            elif canonical_category(label) != UNLISTED:
                self.num_by_folder_only += 1
                items = [SourceItem(label, None)]
            else:
                message = f"no readable annotation, and the folder {image_path.parent.name!r} names no one category"
                self.faults.append(Fault(image_path, f"{message}; left out"))
                return None
        meant = canonical_category(label)
        if meant != UNLISTED and meant not in {canonical_category(item.label) for item in items}:
            self.notices.append(Fault(annotation_path, f"no shape is a {label} as the folder says; added without box"))
            items = [*items, SourceItem(label, None)]
        parsed = parse_file_name(image_path.stem)
        self.num_strange_names += parsed is None
        stem = re.sub(r"_\d+$", "", image_path.stem)
        bag = f"{parsed.threat_item}_B{parsed.bag}" if parsed else f"{label}/{stem}"
        return SourceScan(
            image_path=image_path,
            original_name=name,
            annotation_path=annotation_path,
            items=tuple(items),
            split=self.split,
            # The authors' two sets were collected apart and count their bags apart: B2 is not the same bag in both.
            group=f"{self.split}/{bag}",
            size_wh=size_wh,
            caption=self._caption(image_path, label, seen),
            licence="see the data set's page on the hub; treat as research only",
            factors={"folder": label, **(parsed.factors() if parsed else {})},
        )

    def _annotation(
        self, image_path: Path, label: str, seen: Callable[[bytes], None]
    ) -> tuple[list[SourceItem] | None, tuple[int, int] | None, Path]:
        for folders in (self.boxes, self.polygons):
            folder = folders.get(label.lower())
            path = folder / f"{image_path.stem}.json" if folder else None
            if path is None or not path.is_file():
                continue
            data = path.read_bytes()
            seen(data)
            try:
                content = _Labelme.model_validate_json(data)
            except ValidationError as error:
                self.faults.append(Fault(path, f"is no Labelme annotation: {first_error(error)}"))
                continue
            self.num_from_polygons += folders is self.polygons
            size_wh = (content.imageWidth, content.imageHeight) if content.imageWidth and content.imageHeight else None
            items = [self._item(shape, index, path) for index, shape in enumerate(content.shapes)]
            return (items or None), size_wh, path
        return None, None, image_path

    def _item(self, shape: _Shape, index: int, path: Path) -> SourceItem:
        label = class_label(shape.label)
        if len(shape.points) < 2:
            self.notices.append(Fault(path, f"{label} has {len(shape.points)} points, no box; label kept", index))
            return SourceItem(label, None, index)
        xs, ys = ([point[axis] for point in shape.points] for axis in (0, 1))
        box = (min(xs), min(ys), round(max(xs) - min(xs), 6), round(max(ys) - min(ys), 6))
        return SourceItem(label, box, index)

    def _caption(self, image_path: Path, label: str, seen: Callable[[bytes], None]) -> str:
        folder = self.captions.get(label.lower())
        path = folder / f"{image_path.stem}.txt" if folder else None
        if path is None or not path.is_file():
            return ""
        data = path.read_bytes()
        seen(data)
        return " ".join(data.decode("utf-8", errors="replace").split())

    def sum_up(self) -> None:
        """Say once what holds for many scans."""
        for count, message in (
            (self.num_by_folder_only, "scans have no shape; their folder's label is kept without box"),
            (self.num_from_polygons, "scans have no Json_BB; their boxes are those around the polygons"),
            (self.num_strange_names, "file names do not follow the grammar; factors unknown, grouped by name"),
        ):
            if count:
                self.notices.append(Fault(self.folder, f"{count} {message}"))
