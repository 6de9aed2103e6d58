"""What makes a pass with some trees large."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from xray_vqa.modeling.prompt_tree import IGNORE_INDEX

Item = dict[str, Any]
"""One image's tree with all that goes with it, from `ScanDataset`."""


class Demand(NamedTuple):
    """What makes a pass large."""

    tokens: int = 0
    patches: int = 0
    answers: int = 0
    """Tokens that meet the output layer."""

    @classmethod
    def of(cls, items: Iterable[Item]) -> "Demand":
        """Return what some trees demand together."""
        return cls.total(
            cls(
                item["row"].input_ids.numel(),
                int(item["grid_thw"].prod()),
                int((item["row"].labels != IGNORE_INDEX).sum()),
            )
            for item in items
        )

    @classmethod
    def total(cls, demands: Iterable["Demand"]) -> "Demand":
        """Return the sums."""
        columns = list(zip(*demands, strict=True))
        return cls(*map(sum, columns)) if columns else cls()
