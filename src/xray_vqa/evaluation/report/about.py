"""What a reader has to know of the scans and of the run beside the numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from xray_vqa.core.manifest import Manifest
from xray_vqa.core.records import SIMULATED_SOURCES
from xray_vqa.evaluation.records import PredictionsHeader, ScanPrediction
from xray_vqa.evaluation.report.confusion import Confusion, confusion_of

Origin = Literal["simulated", "mixed", "real", "unknown"]


@dataclass(frozen=True, slots=True)
class About:
    """Where the scans come from, what is said where another thing is there, and what made the results."""

    num_scans: int = 0
    num_simulated: int = 0
    sources: tuple[str, ...] = ()
    thresholds_from_simulated: bool = False
    """Whether simulated scans are among those that the calibration in force was fitted on."""
    confusion: Confusion | None = None
    manifests: tuple[tuple[str, Manifest], ...] = ()
    """Of the stages, by what they are called on the page."""

    @property
    def origin(self) -> Origin:
        """Whether anything on the scans was simulated. `unknown` where a scan's record does not name its source."""
        if self.num_scans and self.num_simulated == self.num_scans:
            return "simulated"
        if self.num_simulated:
            return "mixed"
        return "real" if self.sources and "" not in self.sources else "unknown"


def about_run(
    predictions: Sequence[ScanPrediction], header: PredictionsHeader, manifests: Sequence[tuple[str, Manifest]]
) -> About:
    """Return what is to be known of a run.

    Args:
        predictions: Of the model.
        header: Of the predictions file.
        manifests: Of the stages, named.
    """
    return About(
        num_scans=len(predictions),
        num_simulated=sum(prediction.source.startswith(SIMULATED_SOURCES) for prediction in predictions),
        sources=tuple(sorted({prediction.source for prediction in predictions})),
        thresholds_from_simulated=header.point.calibration is not None and header.point.calibration.simulated,
        confusion=confusion_of(predictions, header),
        manifests=tuple(manifests),
    )
