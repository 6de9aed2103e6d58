"""The stop switch: a file that makes `clear` impossible while it is there, for all lanes or for some.

    all: fire drill                 # every lane
    customs: new X-ray generator    # or only these

It is read for each decision, so it works at once and for every process that shares the folder. An empty file stops all
lanes (`touch` is enough), and so does one that cannot be read or names no known lane: only a missing file lets go.
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, TypeAdapter

from xray_vqa.core.policy.rules import Lane

_STOPPED = TypeAdapter(Annotated[dict[Literal["all", "cabin", "hold", "customs"], object], Field(min_length=1)])


class StopSwitch:
    """Reads one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_on(self, lane: Lane) -> bool:
        """Whether bags of a lane may not be cleared now. A policy for `any` lane stops with each of them."""
        try:
            stopped = _STOPPED.validate_python(yaml.safe_load(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return False
        except (OSError, ValueError, yaml.YAMLError):
            return True
        return lane == "any" or "all" in stopped or lane in stopped
