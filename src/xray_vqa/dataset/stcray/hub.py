"""Fetches the archives from the hub, and says what to do where it refuses.

Each file costs one HEAD request, which tells its size, its digest and whether the gate is open, and one GET, which the
hub redirects to its store. Files are plain to plain HTTP whether or not the hub keeps them in Xet storage, so `hf_xet`
and HF_HUB_DISABLE_XET make no difference here.
"""

import logging
import re
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xray_vqa.core.jsonl import disk_errors
from xray_vqa.core.manifest import sha256_file
from xray_vqa.dataset.stcray import transfer
from xray_vqa.dataset.stcray.published import ARCHIVES, PAGE, REPO_ID, Archive
from xray_vqa.dataset.storing import require_space
from xray_vqa.errors import ConfigError, Incomplete, IntegrityError

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 15.0

_ELSEWHERE = (
    f"Or fetch {' and '.join(archive.file_name for archive in ARCHIVES)} from {PAGE} on another machine and give their "
    "folder with --source DIR; or go on without STCray: `xray-vqa data synth --output-dir DIR`"
)


def fetch_archives(
    wanted: Sequence[Archive], folder: Path, *, any_version: bool = False, copies_to_come: int = 0
) -> list[Path]:
    """Return the wanted archives' paths after fetching those that are neither in a folder nor in the hub's cache.

    Args:
        wanted: What to fetch.
        folder: Where fetched archives go; made where needed.
        any_version: Whether to take a file that is not the published one.
        copies_to_come: How many times the archives' size has to be free besides, for what is made of them there.

    Raises:
        Incomplete: The hub cannot be reached, the connection broke, or the disk is full.
        ConfigError: No login, the conditions on the data set's page are not accepted, or the file is gone.
        IntegrityError: The hub has another version, or a file arrived damaged.
    """
    from huggingface_hub.errors import HfHubHTTPError

    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they log every request
    paths = {archive.file_name: _here(archive, folder, any_version=any_version) for archive in wanted}
    missing = [archive for archive in wanted if paths[archive.file_name] is None]
    remotes = [_ask(archive, any_version=any_version) for archive in missing]
    if remotes:
        num_bytes = sum(remote.num_bytes - _num_there(folder / remote.name, remote.sha256) for remote in remotes)
        num_in_all = sum(remote.num_bytes for remote in remotes) + sum(
            path.stat().st_size for path in paths.values() if path is not None
        )
        names = " and ".join(remote.name for remote in remotes)
        more = ", unpacked and as a dataset," if copies_to_come else ""
        require_space(folder, num_bytes + copies_to_come * num_in_all, f"{names}{more}")
    for remote in remotes:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            transfer.fetch(remote, folder / remote.name, send=_send)
        except HfHubHTTPError as error:  # all else comes in our words already
            raise _in_our_words(error) from error
        paths[remote.name] = folder / remote.name
    return [path for path in paths.values() if path is not None]


def _here(archive: Archive, folder: Path, *, any_version: bool) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = folder / archive.file_name
    if path.is_file():
        return path
    cached = try_to_load_from_cache(REPO_ID, archive.file_name, repo_type="dataset")
    if not isinstance(cached, str):
        return None
    if archive.sha256 and not any_version and sha256_file(Path(cached)) != archive.sha256:
        logger.warning("%s in the hub's cache is not the published one; it is left there, another is fetched", cached)
        return None
    return Path(cached)


def _num_there(target: Path, sha256: str) -> int:
    part = transfer.part_path(target, sha256)
    return part.stat().st_size if part.is_file() else 0


def _ask(archive: Archive, *, any_version: bool) -> transfer.RemoteFile:
    """Return what the hub says of a file. Raises where it refuses, is silent, or has another version."""
    from huggingface_hub import constants, hf_hub_url

    url = hf_hub_url(REPO_ID, archive.file_name, repo_type="dataset")
    answer = _patient_head(url)
    sha256, num_bytes = answer.etag or "", answer.size
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or num_bytes is None:
        raise Incomplete(f"{url}: the answer names no size and SHA-256; is {constants.ENDPOINT} a mirror of the hub?")
    if archive.sha256 and sha256 != archive.sha256 and not any_version:
        raise IntegrityError(
            f"{archive.file_name}: the hub has another version ({num_bytes:,} bytes instead of {archive.num_bytes:,}, "
            f"SHA-256 {sha256} instead of {archive.sha256}); the authors may have changed it. Nothing was fetched; "
            "pass --any-version if you trust it"
        )
    return transfer.RemoteFile(url, num_bytes, sha256, archive.file_name)


def _patient_head(url: str) -> Any:
    """Return the hub's metadata of a file; a hub that is busy is asked again, one that is not there is not."""
    from huggingface_hub.errors import HfHubHTTPError

    for num_failures in range(1, transfer.MAX_TRIES + 1):
        answer = _bounded_head(url)
        if not isinstance(answer, Exception):
            return answer
        status = answer.response.status_code if isinstance(answer, HfHubHTTPError) else None
        if status not in transfer.PASSING or num_failures == transfer.MAX_TRIES:
            raise _in_our_words(answer) from answer
        wait_s = transfer.pause_after(num_failures)
        if isinstance(answer, HfHubHTTPError):
            wait_s = transfer.retry_after(answer.response.headers) or wait_s
        if wait_s > transfer.LONGEST_WAIT_S:
            raise Incomplete(
                f"{url}: the hub asks to wait {wait_s:.0f} s ({status}); start the same command again then"
            )
        logger.warning("the hub answers %s; asking again in %.1f s", status, wait_s)
        transfer.wait(wait_s)
    raise AssertionError("the last try returns or raises")


def _bounded_head(url: str) -> Any:
    from huggingface_hub import constants, get_hf_file_metadata

    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(get_hf_file_metadata(url))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits, which tells the kinds apart
            answers.append(error)

    # A thread, since no timeout of a request bounds the time that resolving a name takes.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_TIMEOUT_S)
    if not answers:
        raise Incomplete(
            f"{constants.ENDPOINT} did not answer within {PROBE_TIMEOUT_S:.0f} s. With network, the same command goes "
            f"on. {_ELSEWHERE}"
        )
    return answers[0]


@contextmanager
def _send(url: str, headers: dict[str, str]) -> Generator[Any]:
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # pyright: ignore[reportPrivateImportUsage]
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    try:
        with get_session().stream(
            "GET", url, headers=build_hf_headers() | headers, timeout=transfer.TIMEOUT_S, follow_redirects=True
        ) as response:
            if response.status_code in (401, 403, 404):
                response.read()
                hf_raise_for_status(response)
            yield response
    except HTTPError as error:
        if isinstance(error, HfHubHTTPError):
            raise
        raise transfer.LineBroken(_first_line(error)) from error


def _in_our_words(error: Exception) -> Exception:
    """Return the error of ours that tells the user what to do about one of the hub's."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - httpx's or httpx2's, by version
        RepositoryNotFoundError,
    )

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 or (
        isinstance(error, GatedRepoError | RepositoryNotFoundError) and status != 404 and not get_token()
    ):
        found = "The hub does not accept the token that it is given" if get_token() else "STCray asks for a login"
        return ConfigError(
            f"{found}: accept its conditions at {PAGE}, then run `hf auth login` or set HF_TOKEN, and run this again. "
            f"{_ELSEWHERE}"
        )
    if status == 403:
        return ConfigError(
            f"The login is known, and it may not read STCray yet: open {PAGE} in a browser, accept the conditions with "
            "the same account, and run this again; where they have to be approved, wait for that. A fine-grained token "
            f"also needs the right to read gated repositories. {_ELSEWHERE}"
        )
    if isinstance(error, EntryNotFoundError | RepositoryNotFoundError) or status == 404:
        return ConfigError(
            f"{constants.ENDPOINT} has no such file any more ({_first_line(error)}): look at {PAGE} whether it has "
            f"moved. {_ELSEWHERE}"
        )
    if isinstance(error, OSError | HTTPError):
        return Incomplete(
            f"{constants.ENDPOINT} cannot be reached or broke off ({_first_line(error)}). With network (a mirror is "
            f"set by HF_ENDPOINT), the same command goes on. {_ELSEWHERE}"
        )
    return error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
