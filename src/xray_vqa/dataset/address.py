"""Places that are no folder of this machine: s3://, gs://, https://, zip:// and whatever else fsspec opens.

Each filesystem raises errors of its own; here they become ours. A user name, a password or a signature in an address
is for the server and for nobody else: what is shown, stored and logged goes without.
"""

import logging
import re
import tarfile
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from xray_vqa.core.manifest import hide_credentials
from xray_vqa.errors import ConfigError, DatasetError, Incomplete, XrayVqaError

_PROTOCOL = re.compile(r"[a-z][a-z0-9+.\-]*(?:://|::)", re.IGNORECASE)
_LOCAL = re.compile(r"(?:file|local)://", re.IGNORECASE)
_PACKAGES = {"smbclient": "smbprotocol", "libarchive": "libarchive-c", "git": "gitpython"}
"""Packages that are not called like the module that is missing."""
_TALKATIVE = ("fsspec", "aiohttp", "urllib3", "s3fs", "aiobotocore", "botocore", "gcsfs", "adlfs", "azure")
"""Loggers that tell whole addresses, or where they found credentials, when asked for less than warnings."""


@dataclass(frozen=True, slots=True)
class Address:
    """A place and how to read it."""

    shown: str
    """Without credentials."""
    filesystem: Any
    path: str

    @property
    def is_http(self) -> bool:
        protocol = self.filesystem.protocol
        return "http" in ((protocol,) if isinstance(protocol, str) else protocol)


def local_path(text: str) -> Path | None:
    """Return the path that a source on the command line is, or None where it is an address."""
    if _LOCAL.match(text) and "::" not in text:
        return Path(unquote(_LOCAL.sub("", text)))
    return None if _PROTOCOL.match(text) else Path(text)


def open_address(text: str) -> Address:
    """Return what reads an address.

    Raises:
        ConfigError: It is none, its filesystem's package is missing, nothing is there, or one may not read it.
        Incomplete: The server cannot be reached.
    """
    import fsspec

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    shown = hide_credentials(text)
    with remote_errors(shown):
        filesystem, path = fsspec.core.url_to_fs(text)
    return Address(shown, filesystem, path)


@contextmanager
def remote_errors(shown: str) -> Generator[None]:
    """Turn whatever a filesystem raises into an error of ours that names the address.

    Raises:
        ConfigError: Nothing is there, one may not read it, or it is no address.
        DatasetError: It is an archive and broken.
        Incomplete: All else, which another try may mend.
    """
    try:
        yield
    except XrayVqaError:
        raise
    except Exception as error:
        raise _in_our_words(error, shown) from error


def is_missing(error: BaseException) -> bool:
    """Whether an error says that nothing is there, and not that the line to it failed."""
    statuses = _statuses(error)
    if statuses:
        return statuses[0] in (404, 410)
    below = [one for one in _chain(error) if isinstance(one, OSError | TimeoutError)]
    return bool(below) and all(isinstance(one, FileNotFoundError) for one in below)


def is_forbidden(error: BaseException) -> bool:
    """Whether an error says that one may not read it, or not without saying who one is."""
    return any(status in (401, 403) for status in _statuses(error)) or any(
        isinstance(one, PermissionError) or "credential" in type(one).__name__.lower() for one in _chain(error)
    )


def _in_our_words(error: Exception, shown: str) -> XrayVqaError:
    reason = " ".join(hide_credentials(str(error)).split())[:300] or type(error).__name__
    if isinstance(error, ImportError):
        cause = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
        module = (cause.name or "").split(".")[0] if isinstance(cause, ImportError) else ""
        package = _PACKAGES.get(module, module)
        how = f"; install it with: pip install {package}" if package else ""
        return ConfigError(f"{shown}: such addresses need a package that is missing ({reason}){how}")
    if is_forbidden(error):
        return ConfigError(
            f"{shown}: no permission to read it ({reason}); credentials go where the service's own tools look for them "
            "(environment, profile), or into FSSPEC_<PROTOCOL>_* variables"
        )
    if is_missing(error):
        return ConfigError(f"{shown}: nothing is there")
    if isinstance(error, zipfile.BadZipFile | tarfile.TarError):
        return DatasetError(f"{shown}: is no archive of this kind, or damaged ({reason})")
    if isinstance(error, ValueError | TypeError | NotImplementedError) and not _statuses(error):
        return ConfigError(f"{shown}: cannot be opened as an address: {reason}")
    return Incomplete(f"{shown}: the connection failed ({reason}); the same command goes on from here")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _statuses(error: BaseException) -> list[int]:
    """Return the HTTP statuses that an error and its causes carry."""
    found = [
        getattr(one, "status", None) or getattr(getattr(one, "response", None), "status_code", None)
        for one in _chain(error)
    ]
    return [status for status in found if isinstance(status, int)]
