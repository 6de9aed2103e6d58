"""A filesystem in memory whose line breaks, for whatever reads addresses: flaky://folder/file."""

from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Line:
    """What is left of the line and what has gone over it."""

    def __init__(self) -> None:
        self.bytes_left: int | None = None
        """Then it breaks, and every other attempt with it; None for a line that holds."""
        self.opened: list[str] = []
        self.forbidden = False
        self.breaks_with: BaseException = ConnectionResetError("the line broke")


class FlakyFileSystem(MemoryFileSystem):
    protocol = "flaky"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    line = Line()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def info(self, path: str, **kwargs: Any) -> Any:
        if self.line.forbidden:
            raise PermissionError("Access Denied")
        return super().info(path, **kwargs)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        """List as an object store does: one name may be a file and a folder."""
        prefix = self._strip_protocol(path) + "/"
        names = [key.removeprefix(prefix) for key in self.store if key.startswith(prefix)]
        folders = {name.split("/")[0] for name in names if "/" in name}
        files = [
            {"name": prefix + name, "type": "file", "size": file.size, "created": file.created}
            for name in names
            if "/" not in name
            for file in [self.store[prefix + name]]
        ]
        return files + [{"name": prefix + name, "type": "directory", "size": 0} for name in sorted(folders)]

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        file = super()._open(path, mode, **kwargs)
        if mode != "rb":
            return file
        self.line.opened.append(path)
        return _Reader(file, self.line)


class _Reader:
    def __init__(self, file: Any, line: Line) -> None:
        self.file, self.line = file, line

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def seek(self, position: int) -> None:
        self.file.seek(position)

    def read(self, size: int) -> bytes:
        left = self.line.bytes_left
        if left is None:
            return self.file.read(size)
        if left == 0:
            raise self.line.breaks_with
        data = self.file.read(min(size, left))
        self.line.bytes_left = left - len(data)
        return data


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
