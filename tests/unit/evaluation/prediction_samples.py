"""Predictions and an engine's description, made up in one line."""

from collections.abc import Mapping

from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.core.inspection import Score
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.evaluation.records import OperatingPoint, PredictionsHeader, ScanPrediction, ScoreRecord
from xray_vqa.inference.engine import EngineInfo

IDENTITY = EngineIdentity(
    engine="scripted", model_digest="abc", dtype="fp32", processor_version="1", prompt_version="2"
)


def make_info(covered: tuple[str, ...] = CATEGORIES) -> EngineInfo:
    return EngineInfo(identity=IDENTITY, model_name="toy", device="cpu", covered_categories=covered)


def make_prediction(
    number: int, present: tuple[str, ...] = (), scores: Mapping[str, float] | None = None, **more: object
) -> ScanPrediction:
    """A scan that holds `present`; a score outside 0 to 1 is one that cannot be read."""
    values = {
        "image_path": f"test/images/{number:06d}.jpg",
        "image_id": number,
        "group": f"bag-{number}",
        "width": 100,
        "height": 100,
        "truth": [{"category": name} for name in present],
        "annotated_categories": list(scores or {}),
        "scores": {name: ScoreRecord.of(Score.of(value)) for name, value in (scores or {}).items()},
    }
    return ScanPrediction.model_validate(values | more)


def make_header(categories: tuple[str, ...] = ("Gun", "Knife")) -> PredictionsHeader:
    point = OperatingPoint(thresholds=dict.fromkeys(categories, 0.5), origins=dict.fromkeys(categories, "default"))
    return PredictionsHeader(
        identity=IDENTITY,
        model_name="toy",
        covered_categories=list(categories),
        variant="model",
        point=point,
        answer_tokens=8,
    )
