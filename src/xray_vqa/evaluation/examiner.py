"""What a model in training is worth: development scans answered as in service, scored as `xray-vqa evaluate` scores.

Which scans, and when, is training's business; `cli` hands it an examiner.
"""

import logging
from collections import Counter
from collections.abc import Sequence

from xray_vqa.core.policy import Policy
from xray_vqa.errors import ModelUnavailable
from xray_vqa.evaluation.metrics.screening import score_screening
from xray_vqa.evaluation.metrics.text import score_answers
from xray_vqa.evaluation.predict import predict_scans
from xray_vqa.evaluation.records import OperatingPoint, ScanPrediction
from xray_vqa.evaluation.results import ScreeningScores, TextScores
from xray_vqa.evaluation.score import score_table
from xray_vqa.evaluation.testset import EvaluationSet
from xray_vqa.inference.engine import Engine
from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading
from xray_vqa.inference.engines.transformers import TransformersEngine
from xray_vqa.modeling.branch_rows import decoder_of
from xray_vqa.modeling.loading import LoadedModel

logger = logging.getLogger(__name__)

SCANS_TOGETHER = 16
"""Read and answered at once: a token of all their answers costs little more than a token of one."""


class DevelopmentExaminer:
    """Reads and answers some scans with a model that is being trained, and scores what it said.

    Thresholds are the policy's, without a calibration: none holds for weights that still change. Boxes are not decoded.
    """

    def __init__(self, data: EvaluationSet, policy: Policy) -> None:
        self._data = data
        self._point = OperatingPoint.at(policy, data.annotated)

    @property
    def num_scans(self) -> int:
        return len(self._data.scans)

    def answer(self, loaded: LoadedModel, numbers: Sequence[int]) -> list[ScanPrediction]:
        """Return what a model, in evaluation mode, reads out of and answers about the scans with these numbers.

        Raises:
            ModelUnavailable: The engine failed on all of them; failures on some count as wrong, and are logged.
        """
        predictions = self._predict(TransformersEngine.of(decoder_of(loaded)), numbers)
        failures = Counter(prediction.failure for prediction in predictions if prediction.failure)
        if predictions and failures["engine"] == len(predictions):
            raise ModelUnavailable(
                f"the evaluation by generation failed on all {len(predictions)} scans, last: "
                f"{predictions[-1].failure_text}; with eval_generate_images=0 the run goes on without it"
            )
        if failures:
            told = ", ".join(f"{count} {kind}" for kind, count in sorted(failures.items()))
            logger.warning("development scans that failed and count as wrong: %s", told)
        return predictions

    def score(self, answers: Sequence[ScanPrediction]) -> dict[str, float]:
        """Return the metrics by name, without those that these scans cannot measure, as a rate without a clean bag."""
        records = [record for prediction in answers for record in prediction.answers]
        text = score_answers(records, [prediction.group for prediction in answers for _ in prediction.answers])
        table = score_table(answers, self._point)
        metrics = _metrics(text, score_screening(table, self._point.thresholds, self._point.origins))
        return {name: value for name, value in metrics.items() if value is not None}

    def measurable(self) -> frozenset[str]:
        """Return the names of the metrics that these scans can measure, tried with an engine that finds nothing."""
        engine = ScriptedEngine([ScriptedReading()])
        return frozenset(self.score(self._predict(engine, range(self.num_scans))))

    def _predict(self, engine: Engine, numbers: Sequence[int]) -> list[ScanPrediction]:
        predictions: list[ScanPrediction] = []
        for at in range(0, len(numbers), SCANS_TOGETHER):
            batch = [self._data.scans[number] for number in numbers[at : at + SCANS_TOGETHER]]
            predictions += predict_scans(engine, batch, self._data, self._data.annotated, place_from={})
        return predictions


def _metrics(text: TextScores, screening: ScreeningScores) -> dict[str, float | None]:
    bag = screening.bag
    return {
        "item_f1": screening.item_f1.f1.value,
        "exact_match": text.exact_match.value,
        "lenient_match": text.lenient_match.value,
        "auc": bag.auc.value,
        "category_auc": screening.macro_auc,
        "recall_at_fpr5": bag.pd_at_pfa["0.05"].value,
        "recall_at_fpr10": bag.pd_at_pfa["0.1"].value,
    }
