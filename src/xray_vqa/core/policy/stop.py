"""The stop switch: a file that makes `clear` impossible while it is there, for some lanes or for all.

    customs: new X-ray generator    # this lane alone
    all: fire drill                 # every lane

It is read for each decision, so it works at once and for every process that shares the folder. An empty file stops all
lanes (`touch` is enough), and so does one that cannot be read or names anything but lanes: only a missing one lets go.
"""

from pathlib import Path
from typing import Annotated, get_args

import yaml
from pydantic import Field, TypeAdapter

from xray_vqa.core.policy.rules import Lane

_STOPPED = TypeAdapter(Annotated[dict[str, object], Field(min_length=1)])
_LANES = frozenset(get_args(Lane)) - {"any"}


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
        return lane == "any" or lane in stopped or not stopped.keys() <= _LANES
