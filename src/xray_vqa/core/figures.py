"""What some weights were measured to be worth: `figures.json` beside them, shown by `xray-vqa doctor`."""

from pathlib import Path

from pydantic import ValidationError

from xray_vqa.core.jsonl import first_error, read_json, write_json
from xray_vqa.core.records import Strict
from xray_vqa.errors import DatasetError

FIGURES_NAME = "figures.json"


class Figure(Strict):
    """A number with its 95 % interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Figures(Strict):
    """Figures of exactly one set of weights."""

    model_digest: str
    measured_on: str
    values: dict[str, Figure]
    """By name, in the order in which they are shown."""


def read_figures(model_dir: Path) -> Figures | None:
    """Return the figures beside some weights, or None where there are none. Raises DatasetError if broken."""
    path = model_dir / FIGURES_NAME
    if not path.is_file():
        return None
    try:
        return Figures.model_validate(read_json(path))
    except ValidationError as error:
        raise DatasetError(f"{path}: no figures of this version: {first_error(error)}") from error


def write_figures(model_dir: Path, figures: Figures) -> Path:
    """Write the figures beside some weights and return their path."""
    path = model_dir / FIGURES_NAME
    write_json(path, figures.model_dump(mode="json"))
    return path
