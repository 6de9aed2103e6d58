"""An engine that reads from a predictions file: the inspector's decisions on scans that were predicted long ago."""

from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from xray_vqa.core.inspection import MISSING, Score
from xray_vqa.errors import AnswerUnreadable, ModelUnavailable
from xray_vqa.evaluation.records import PredictionsHeader, ScanPrediction
from xray_vqa.inference.engine import Answer, EngineInfo, Reading


class ReplayEngine:
    """Gives the readings of some predictions in turn. The caller passes the images of the same scans."""

    def __init__(self, header: PredictionsHeader, predictions: Iterable[ScanPrediction]) -> None:
        self._header = header
        self._predictions = iter(predictions)

    @property
    def loaded(self) -> None:
        """No model is behind a file, so there are no heat maps."""

    def start(self) -> EngineInfo:
        header = self._header
        return EngineInfo(
            identity=header.identity,
            model_name=header.model_name,
            device="replay",
            covered_categories=tuple(header.covered_categories),
            calibration=header.point.calibration,
        )

    def probe(self) -> None:
        """Nothing can be out of order."""

    def read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        return [self._read_one(categories) for _ in images]

    def _read_one(self, categories: Sequence[str]) -> Reading:
        prediction = next(self._predictions, None)
        if prediction is None:
            raise ModelUnavailable("there are no more predictions to replay")
        if prediction.failure:
            raise AnswerUnreadable(prediction.failure_text, text="")
        records = prediction.scores
        scores = {
            name: Score(records[name].state, records[name].probability) if name in records else MISSING
            for name in categories
        }
        return Reading(scores, {name: tuple(prediction.boxes_of(name)) for name in prediction.boxes})

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]], max_tokens: int = 64
    ) -> list[list[Answer]]:
        raise AnswerUnreadable("a replay holds only the questions that were asked", text="")

    def close(self) -> None:
        """Nothing is held."""
