"""The shape of `results/robustness.json`."""

from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.core.records import Strict
from xray_vqa.evaluation.results import Estimate


class CurvePoint(Strict):
    """One strength. Estimates have 95 % intervals over bags; calibration and thresholds are the unperturbed model's."""

    strength: float
    pd: Estimate
    """Share of threat bags that are flagged for anything."""
    pfa: Estimate
    """Share of clean bags that are flagged."""
    item_pd: Estimate
    """Share of the categories that are in a bag for which it is flagged."""
    auc: Estimate
    """Of threat bags against clean ones."""
    localisation: Estimate
    """Share of annotated boxes met with IoU 0.5 or more."""
    changes: dict[str, Estimate]
    """By number, its change from the unperturbed scans, with the interval of the paired difference."""
    num_failed: int
    """Scans that the engine could not read; misses and false alarms."""


class DropPoint(Strict):
    """The strength at which Pd has fallen by `drop`."""

    drop: float
    strength: float | None
    """Null where it does not fall so far within the strengths that were tried."""
    low: float | None
    high: float | None
    """Null where the interval's end lies beyond the largest strength."""
    within: bool
    largest: float
    """The largest strength that was tried."""


class Curve(Strict):
    """One kind of perturbation, from strength 0 (the scans as they are) up."""

    kind: str
    unit: str
    points: list[CurvePoint]
    drop: DropPoint


class RobustnessResults(Strict):
    """`results/robustness.json`."""

    curves: list[Curve]
    identity: EngineIdentity
    model_name: str
    calibrated: bool
    split: str
    num_scans: int
    num_groups: int
    max_images: int | None
    seed: int
    scanner_looks: dict[str, int]
    """How many scans got another scanner's look by being `simulated again`, how many by being `coloured anew`."""
    inputs: dict[str, str]
    """SHA-256 of the pairs and annotation files by name."""
    perturbation_version: str
    notes: list[str] = []
