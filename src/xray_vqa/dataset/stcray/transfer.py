"""One file over HTTP, gone on with where it stopped, however it stopped.

huggingface_hub gives each download a new temporary name and removes it afterwards (since pull request 4228), so a
process that is stopped loses what it had; at a gigabyte over a line that breaks, such a download never ends. Here the
part stands beside its target, under a name that holds the wanted digest: it only ever grows towards that content.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tqdm import tqdm

from xray_vqa.core.jsonl import disk_errors
from xray_vqa.core.manifest import sha256_file
from xray_vqa.errors import Incomplete, IntegrityError

logger = logging.getLogger(__name__)

MAX_TRIES = 6
"""In a row without one new byte."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 120.0
"""A server that asks for more patience gets it from the user, who starts the command again."""
TIMEOUT_S = 30.0
"""Without one byte."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524})


class LineBroken(Exception):
    """The connection failed, or the server cannot answer now; another try may do. `wait_s` where it says when."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch and what its server says of it."""

    url: str
    num_bytes: int
    sha256: str
    name: str


def fetch(
    remote: RemoteFile,
    target: Path,
    *,
    send: Callable[..., Any],
) -> None:
    """Fetch a file, going on with the part that is there, and check its digest before it gets its name.

    Args:
        remote: The file.
        target: Where it goes; `.<name>.<digest>.part` beside it is the part.
        send: Opens a request: `send(url, headers) -> context manager of a response`, which raises for a status that
            another try does not mend, follows redirects, and turns what goes wrong on the line into LineBroken.

    Raises:
        Incomplete: The line or the server failed too often, or the disk is full. The part stays.
        IntegrityError: The content is not what the server announced. It is deleted.
    """
    part = part_path(target, remote.sha256)
    for other in target.parent.glob(f".{target.name}.*.part"):
        if other != part:
            logger.info("%s belongs to another version and is removed", other)
            other.unlink()
    with disk_errors(part):
        stream = part.open("ab", buffering=0)
    progress = tqdm(
        desc=remote.name, total=remote.num_bytes, unit="B", unit_scale=True, unit_divisor=1000, disable=None
    )
    with stream, progress:
        if stream.tell() > remote.num_bytes:
            _start_over(stream, progress)
        progress.update(stream.tell())
        num_failures = 0
        while (have := stream.tell()) < remote.num_bytes:
            wait_s, reason = None, "the connection was closed"
            try:
                _fetch_rest(remote, stream, send, progress)
            except LineBroken as error:
                wait_s, reason = error.wait_s, str(error)
            if stream.tell() >= remote.num_bytes:
                break
            num_failures = 1 if stream.tell() > have else num_failures + 1
            wait_s = pause_after(num_failures) if wait_s is None else wait_s
            if num_failures >= MAX_TRIES or wait_s > LONGEST_WAIT_S:
                asked = f"; it asks to wait {wait_s:.0f} s" if wait_s > LONGEST_WAIT_S else ""
                raise Incomplete(
                    f"{remote.name}: stopped after {stream.tell():,} of {remote.num_bytes:,} bytes, {reason}{asked}. "
                    "The same command goes on from there"
                )
            message = "%s: %s after %s bytes; going on in %.1f s"
            logger.warning(message, remote.name, reason, f"{stream.tell():,}", wait_s)
            wait(wait_s)
    digest = sha256_file(part)
    if digest != remote.sha256:
        part.unlink()
        raise IntegrityError(
            f"{remote.name}: what was fetched has the SHA-256 {digest} instead of {remote.sha256}, so it was damaged "
            "on the way; it is deleted. Start the same command again"
        )
    with disk_errors(target):
        part.replace(target)


def part_path(target: Path, sha256: str) -> Path:
    return target.with_name(f".{target.name}.{sha256[:16]}.part")


def _fetch_rest(remote: RemoteFile, stream: Any, send: Callable[..., Any], progress: Any) -> None:
    """Append what is missing, as far as the line holds."""
    have = stream.tell()
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with send(remote.url, headers) as response:
        status = response.status_code
        if status == HTTPStatus.OK and have:
            _start_over(stream, progress)  # a proxy that knows no ranges sends everything
        elif status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or (
            status == HTTPStatus.PARTIAL_CONTENT
            and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        ):
            _start_over(stream, progress)
            raise LineBroken("the server cannot go on from there")
        elif status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise LineBroken(f"the server answers {status}", retry_after(response.headers))
        for chunk in response.iter_bytes():
            room = remote.num_bytes - stream.tell()
            _append(stream, memoryview(chunk)[:room])
            progress.update(min(len(chunk), room))
            if len(chunk) > room:
                return


def _append(stream: Any, rest: memoryview) -> None:
    with disk_errors(Path(stream.name)):
        while rest:  # a raw write may take a part, as on a disk that is filling up
            rest = rest[stream.write(rest) :]


def _start_over(stream: Any, progress: Any) -> None:
    stream.truncate(0)
    stream.seek(0)
    progress.reset()


def wait(seconds: float) -> None:
    """Wait; tests have another clock."""
    time.sleep(seconds)


def pause_after(num_failures: int) -> float:
    """Return how many seconds to wait after so many failures in a row."""
    return FIRST_WAIT_S * 2 ** (num_failures - 1)


def retry_after(headers: Any) -> float | None:
    """Return the seconds that `Retry-After` asks for. A date, which hubs do not send, is taken for no wish."""
    text = headers.get("Retry-After", "").strip()
    return float(text) if text.isdecimal() else None
