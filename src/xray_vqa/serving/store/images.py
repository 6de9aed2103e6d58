"""Keeps the images of scans under their content's hash, in a folder or any store that fsspec opens. Off by default.

Records name an image by its hash (`image_hash`). A scan that comes twice is kept once.
"""

import re
from collections.abc import Iterator

from xray_vqa.core.jsonl import replacing
from xray_vqa.core.manifest import hide_credentials
from xray_vqa.dataset.address import local_path, open_address, remote_errors

_NAME = re.compile(r"([0-9a-f]{64})$")


class ImageStore:
    """Images in a folder or under an address (`s3://bucket/scans`). Raises XrayVqaError or OSError."""

    def __init__(self, where: str) -> None:
        self.shown = hide_credentials(where)
        self._where = where
        self._folder = local_path(where)

    def put(self, image_hash: str, data: bytes) -> None:
        """Return when an image is kept, its bytes unchanged."""
        if self._folder is not None:
            path = self._folder / _place(image_hash)
            if not path.is_file():
                with replacing(path) as stream:
                    stream.write(data)
            return
        address = open_address(self._where)
        with remote_errors(self.shown):
            name = f"{address.path.rstrip('/')}/{_place(image_hash)}"
            if not address.filesystem.exists(name):
                address.filesystem.pipe_file(name, data)

    def get(self, image_hash: str) -> bytes:
        """Return an image's bytes."""
        address = open_address(self._where)
        with remote_errors(self.shown):
            return address.filesystem.cat_file(f"{address.path.rstrip('/')}/{_place(image_hash)}")

    def delete(self, image_hash: str) -> None:
        """Delete an image that is there."""
        address = open_address(self._where)
        with remote_errors(self.shown):
            address.filesystem.rm_file(f"{address.path.rstrip('/')}/{_place(image_hash)}")

    def hashes(self) -> Iterator[str]:
        """Return the hashes of all images that are kept; other files are left alone."""
        address = open_address(self._where)
        with remote_errors(self.shown):
            names = address.filesystem.find(address.path) if address.filesystem.exists(address.path) else []
        for name in names:
            if match := _NAME.search(name):
                yield match[1]


def _place(image_hash: str) -> str:
    """Two digits a folder, so that none holds more than a file system likes."""
    return f"{image_hash[:2]}/{image_hash}"
