"""Fetching from a hub that has bad days: the stand-in of tests/stand_ins/hub.py."""

import hashlib
import threading
from collections import deque
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand_ins.hub import MEMBER_TOKEN, STRANGER_TOKEN, Behaviour, running

from xray_vqa.dataset.stcray import hub, published, transfer
from xray_vqa.errors import ConfigError, Incomplete, IntegrityError

DATA = {"STCray_TrainSet.rar": bytes(range(256)) * 16, "STCray_TestSet.rar": b"test" * 300}


@pytest.fixture
def waits(monkeypatch):
    """The clock: what was waited, without waiting."""
    waits: list[float] = []
    monkeypatch.setattr(transfer, "wait", waits.append)
    return waits


@pytest.fixture
def behaviour(monkeypatch, tmp_path, waits):
    """A hub that has both archives, a login that has accepted, and the archives' digests as published."""
    behaviour = Behaviour(files=dict(DATA))
    known = [
        archive._replace(num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for archive, data in zip(published.ARCHIVES, DATA.values(), strict=True)
    ]
    monkeypatch.setattr(published, "ARCHIVES", tuple(known))
    monkeypatch.setenv("HF_TOKEN", MEMBER_TOKEN)
    constants = "huggingface_hub.constants."
    monkeypatch.setattr(constants + "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants + "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with running(behaviour) as endpoint:
        monkeypatch.setattr(constants + "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants + "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield behaviour


def fetch(folder: Path, **options: bool) -> dict[str, bytes]:
    paths = hub.fetch_archives(published.ARCHIVES, folder, **options)
    return {path.name: path.read_bytes() for path in paths}


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_archives_are_fetched_whole_and_once(behaviour, tmp_path):
    assert fetch(tmp_path / "a") == DATA
    assert listing(tmp_path / "a") == sorted(DATA)
    num_requests = len(behaviour.requests)
    assert fetch(tmp_path / "a") == DATA
    assert len(behaviour.requests) == num_requests


def test_the_token_goes_to_the_hub_and_never_to_its_store(behaviour, tmp_path):
    fetch(tmp_path / "a")
    authorization = {(one.server, one.headers.get("authorization")) for one in behaviour.requests if "rar" in one.path}
    assert authorization == {("hub", f"Bearer {MEMBER_TOKEN}"), ("store", None)}


def test_files_in_xet_storage_come_over_http_all_the_same(behaviour, tmp_path):
    behaviour.xet = True
    assert fetch(tmp_path / "a") == DATA


def test_what_lies_in_the_hubs_own_cache_is_not_fetched(behaviour, tmp_path):
    from huggingface_hub import hf_hub_download

    for name in DATA:
        hf_hub_download(published.REPO_ID, name, repo_type="dataset", cache_dir=tmp_path / "cache")
    behaviour.requests.clear()
    assert fetch(tmp_path / "a") == DATA
    assert behaviour.requests == []


def test_a_damaged_file_in_the_hubs_cache_is_left_there_and_another_is_fetched(behaviour, tmp_path):
    from huggingface_hub import hf_hub_download

    path = Path(
        hf_hub_download(published.REPO_ID, "STCray_TestSet.rar", repo_type="dataset", cache_dir=tmp_path / "cache")
    )
    path.write_bytes(b"damaged")
    assert fetch(tmp_path / "a") == DATA
    assert path.read_bytes() == b"damaged"


# --- lines that break ------------------------------------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 4096), max_size=4))
def test_a_line_that_breaks_anywhere_is_gone_on_with_from_there(behaviour, tmp_path_factory, cuts):
    behaviour.cuts, folder = deque(cuts), tmp_path_factory.mktemp("a")
    behaviour.requests.clear()
    assert fetch(folder) == DATA
    assert listing(folder) == sorted(DATA)
    ranges = [one.headers.get("Range", "bytes=0-") for one in behaviour.asked("store", "GET")]
    starts = [int(text.removeprefix("bytes=").removesuffix("-")) for text in ranges]
    bodies = [*cuts, *[10**6] * len(starts)]
    have, name = 0, iter(DATA.values())
    size = len(next(name))
    for start, body in zip(starts, bodies, strict=False):  # each request begins where the one before was cut off
        assert start == have
        have += min(body, size - have)
        if have == size:
            have, size = 0, len(next(name, b""))


def test_a_process_that_was_stopped_leaves_a_part_that_the_next_one_goes_on_with(behaviour, tmp_path):
    behaviour.cuts = deque([1000, *[0] * transfer.MAX_TRIES])
    with pytest.raises(Incomplete, match=r"stopped after 1,000 of 4,096 bytes.*same command goes on"):
        fetch(tmp_path / "a")
    behaviour.cuts.clear()
    behaviour.requests.clear()
    assert fetch(tmp_path / "a") == DATA
    assert behaviour.asked("store", "GET")[0].headers["Range"] == "bytes=1000-"


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 5000])
def test_a_part_of_any_length_is_completed(behaviour, tmp_path, length):
    part = transfer.part_path(tmp_path / "STCray_TrainSet.rar", published.ARCHIVES[0].sha256)
    part.write_bytes((DATA["STCray_TrainSet.rar"] + bytes(1000))[:length])
    assert fetch(tmp_path)["STCray_TrainSet.rar"] == DATA["STCray_TrainSet.rar"]


def test_a_part_of_another_version_is_removed(behaviour, tmp_path):
    (tmp_path / ".STCray_TrainSet.rar.0123456789abcdef.part").write_bytes(b"old")
    fetch(tmp_path)
    assert listing(tmp_path) == sorted(DATA)


def test_a_store_that_knows_no_ranges_sends_all_again(behaviour, tmp_path):
    behaviour.knows_ranges, behaviour.cuts = False, deque([1000])
    assert fetch(tmp_path / "a") == DATA


def test_a_store_that_goes_silent_is_left(behaviour, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT_S", 0.1)
    behaviour.silent = threading.Event()
    with pytest.raises(Incomplete, match="stopped after 0 of 4,096 bytes"):
        fetch(tmp_path / "a")
    behaviour.silent.set()


# --- what arrives is not what was announced --------------------------------------------------------------------------


def test_a_file_that_was_damaged_on_the_way_is_deleted_and_named(behaviour, tmp_path):
    behaviour.damage = True
    with pytest.raises(IntegrityError, match=r"STCray_TrainSet\.rar: what was fetched has the SHA-256"):
        fetch(tmp_path / "a")
    assert listing(tmp_path / "a") == []
    behaviour.damage = False
    assert fetch(tmp_path / "a") == DATA


def test_another_version_on_the_hub_is_refused_before_it_is_fetched(behaviour, tmp_path):
    behaviour.files["STCray_TestSet.rar"] = b"changed"
    with pytest.raises(IntegrityError, match=r"STCray_TestSet\.rar: the hub has another version \(7 bytes instead of"):
        fetch(tmp_path / "a")
    assert behaviour.asked("store", "GET") == []
    assert fetch(tmp_path / "a", any_version=True)["STCray_TestSet.rar"] == b"changed"


# --- refusals --------------------------------------------------------------------------------------------------------

PAGE = "https://huggingface.co/datasets/Naoufel555/STCray-Dataset"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", ["STCray asks for a login", f"accept its conditions at {PAGE}", "`hf auth login`", "HF_TOKEN"]),
        ("hf_wrong", ["does not accept the token", "`hf auth login`"]),
        (STRANGER_TOKEN, ["The login is known", f"open {PAGE}", "accept the conditions with the same account"]),
    ],
)
def test_a_gate_that_is_shut_says_how_it_opens(behaviour, tmp_path, monkeypatch, token, said):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError) as caught:
        fetch(tmp_path / "a")
    for words in [*said, "--source DIR", "xray-vqa data synth"]:
        assert words in str(caught.value)
    assert behaviour.asked("store", "GET") == []


def test_a_gate_that_shuts_during_the_download_says_the_same_and_the_part_stays(behaviour, tmp_path):
    part = transfer.part_path(tmp_path / "STCray_TrainSet.rar", published.ARCHIVES[0].sha256)
    part.write_bytes(DATA["STCray_TrainSet.rar"][:1000])
    behaviour.failures.extend([("STORE", 503, {}), ("GET", 403, {"X-Error-Code": "GatedRepo"})])
    with pytest.raises(ConfigError, match="accept the conditions with the same account"):
        fetch(tmp_path)
    assert part.stat().st_size == 1000


@pytest.mark.parametrize("gone", ["file", "repository"])
def test_what_the_hub_no_longer_has_is_said(behaviour, tmp_path, gone):
    behaviour.repo_exists = gone == "file"
    behaviour.files = {}
    with pytest.raises(ConfigError, match=f"no such file any more .*: look at {PAGE}"):
        fetch(tmp_path / "a")


@pytest.mark.parametrize("kind", ["HEAD", "GET", "STORE"])
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(behaviour, tmp_path, waits, kind, status):
    behaviour.failures.extend([(kind, status, {})] * 2)
    assert fetch(tmp_path / "a") == DATA
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize("kind", ["HEAD", "GET", "STORE"])
def test_retry_after_is_kept(behaviour, tmp_path, waits, kind):
    behaviour.failures.append((kind, 429, {"Retry-After": "7"}))
    assert fetch(tmp_path / "a") == DATA
    assert waits == [7.0]


@pytest.mark.parametrize("kind", ["HEAD", "GET"])
def test_a_long_wait_is_left_to_the_user(behaviour, tmp_path, waits, kind):
    behaviour.failures.append((kind, 429, {"Retry-After": "3600"}))
    with pytest.raises(Incomplete, match="asks to wait 3600 s"):
        fetch(tmp_path / "a")
    assert waits == []


@pytest.mark.parametrize("kind", ["HEAD", "GET", "STORE"])
def test_a_server_that_stays_down_ends_with_3(behaviour, tmp_path, waits, kind):
    behaviour.failures.extend([(kind, 503, {})] * 50)
    with pytest.raises(Incomplete, match="same command goes on"):
        fetch(tmp_path / "a")
    assert waits == [0.5, 1, 2, 4, 8]


# --- disks -----------------------------------------------------------------------------------------------------------


def test_room_is_looked_for_before_anything_is_fetched(behaviour, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5000}))
    with pytest.raises(Incomplete, match=r"needed for STCray_TrainSet\.rar and STCray_TestSet\.rar; make room"):
        fetch(tmp_path / "a")
    assert behaviour.asked("store", "GET") == []
    (tmp_path / "a").mkdir()
    part = transfer.part_path(tmp_path / "a/STCray_TrainSet.rar", published.ARCHIVES[0].sha256)
    part.write_bytes(DATA["STCray_TrainSet.rar"][:1000])
    assert fetch(tmp_path / "a") == DATA  # what is there already needs no room


def test_a_disk_that_fills_up_ends_with_3_and_goes_on_with_room(behaviour, tmp_path, small_disk, monkeypatch):
    behaviour.files["STCray_TrainSet.rar"] = bytes(300_000)
    monkeypatch.setattr(hub, "require_space", lambda *args: None)  # something else fills the disk meanwhile
    disk = small_disk("100k")
    with pytest.raises(Incomplete, match="No space left on device; make room"):
        fetch(disk, any_version=True)
    small_disk("1m", at=disk)
    behaviour.requests.clear()
    assert fetch(disk, any_version=True)["STCray_TrainSet.rar"] == bytes(300_000)
    assert behaviour.asked("store", "GET")[0].headers["Range"] != "bytes=0-"
