"""The shape of `results/evaluation.json`: the guide's four flat keys first, everything else beneath them."""

from pydantic import Field

from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.core.records import Strict
from xray_vqa.evaluation.records import ThresholdOrigin

FLAT_KEYS = ("exact_match_accuracy", "item_f1", "bleu", "rouge_l")


class Estimate(Strict):
    """A number with the size of what it was measured on and its 95 % interval; null where nothing can be measured."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None


class ItemScores(Strict):
    """Named items against items that are there, counted over all scans or answers together (micro)."""

    precision: float | None
    recall: float | None
    f1: Estimate
    """`n` is the number of items that are there."""


class BleuScore(Strict):
    """Corpus BLEU by sacrebleu, divided by 100."""

    value: float | None
    n: int
    signatures: list[str]
    """sacrebleu's own, one for each tokenizer that the answers' languages called for."""


class TextScores(Strict):
    """How the answers to the questions compare with the references."""

    num_questions: int
    num_unreadable: int
    """Answered with nothing that can be read; they count as wrong in every number here."""
    exact_match: Estimate
    """Equal to the short or the full reference after normalisation. Its interval treats a bag as one observation."""
    lenient_match: Estimate
    """Says the same yes or no, number, items and places, in whatever words."""
    item_f1: ItemScores | None = None
    """Items named in answers to questions that ask for them; null where the test file has no such question."""
    bleu: BleuScore
    """On long references only: one-word answers have no 4-grams, so that perfect ones score 0."""
    rouge_l: Estimate
    """Mean F1 on the same long references."""
    rouge_l_all: Estimate


class CategoryScores(Strict):
    """One category over all scans whose source labels it."""

    num_positive: int
    num_negative: int
    num_unscored: int
    """Scans without a usable score: a miss where the item is there, a false alarm where it is not."""
    covered: bool
    """Whether the model says that it was trained and evaluated on this category."""
    threshold: float
    threshold_from: ThresholdOrigin
    auc: float | None
    """Of scans with the item against all other scans, with other items or none."""
    auc_interval: Estimate
    """The same number with its interval over groups of scans."""
    average_precision: float | None
    pd: Estimate
    """Share of scans with the item that are flagged for it (hit rate)."""
    pfa: Estimate
    """Share of scans without it that are flagged for it (false alarm rate)."""
    pd_at_pfa: dict[str, Estimate]
    """By the false alarm rate that is not exceeded, at the threshold that this set itself calls for."""
    f1: float | None


class BagScores(Strict):
    """Threat bags against clean ones. A bag's score is its largest margin over a category's threshold."""

    num_threat: int
    num_clean: int
    num_left_out: int
    """Bags whose only items have labels outside the taxonomy."""
    auc: Estimate
    pd: Estimate
    pfa: Estimate
    pd_at_pfa: dict[str, Estimate]
    roc: list[tuple[float, float]]
    """(Pfa, Pd) from the strictest to the laxest margin, thinned for drawing."""


class WorstCategory(Strict):
    """The category that a number is smallest for."""

    category: str
    value: float


class ScreeningScores(Strict):
    """What the scores are worth for screening, over annotated categories only."""

    bag: BagScores
    item_f1: ItemScores
    macro_f1: Estimate
    """Mean over the categories that are there or flagged, each counting the same."""
    calibration_error: float | None
    """Expected calibration error of all probes together: over ten equally wide bins of the corrected probability, the
    mean distance of a bin's mean from the share of its probes whose item is there, weighted by its size."""
    macro_auc: float | None
    macro_average_precision: float | None
    macro_pd: float | None
    worst_auc: WorstCategory | None
    worst_pd: WorstCategory | None
    categories: dict[str, CategoryScores]


class LocalisationScores(Strict):
    """Predicted boxes against annotated ones of the same category, matched one to one from the best overlap down."""

    accuracy: Estimate
    """Share of annotated boxes met with IoU 0.5 or more. An item that was not found or not placed is a miss."""
    mean_iou: float | None
    """Over the annotated boxes, 0 for those without a match."""
    num_predicted: int
    precision: float | None
    """Share of predicted boxes that meet an annotated one."""


class Row(Strict):
    """One line of the comparison table."""

    name: str
    """`model`, `untuned`, `majority` or `blind`."""
    what: str
    """What it is, in words and digests."""
    exact_match: Estimate
    item_f1: Estimate
    bag_auc: Estimate
    pd_at_pfa_5: Estimate
    localisation: Estimate


class Unreadable(Strict):
    """What the engine could not answer; counted as wrong, never left out."""

    scans: int
    answers: int
    scores: int
    named: list[str]
    """The first of them, with the reason."""


class Scored(Strict):
    """What these numbers are about."""

    identity: EngineIdentity
    model_name: str
    covered_categories: list[str]
    calibrated: bool
    split: str
    num_scans: int
    num_groups: int
    num_questions: int
    max_samples: int | None
    max_images: int | None
    inputs: dict[str, str]
    """SHA-256 of the pairs and annotation files by name."""
    normaliser: str
    score_version: str


class EvaluationResults(Strict):
    """`results/evaluation.json`. The order of the fields is the order in the file."""

    exact_match_accuracy: float | None = Field(ge=0, le=1)
    item_f1: float | None = Field(ge=0, le=1)
    """Of the items flagged at the thresholds, as an inspection reports them."""
    bleu: float | None = Field(ge=0, le=1)
    rouge_l: float | None = Field(ge=0, le=1)
    rows: list[Row]
    text: TextScores
    by_question_type: dict[str, TextScores]
    screening: ScreeningScores
    localisation: LocalisationScores
    unreadable: Unreadable
    scored: Scored
    notes: list[str] = []
