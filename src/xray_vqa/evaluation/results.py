"""The shape of `results/evaluation.json`: the guide's four flat keys first, everything else beneath them."""

from typing import Literal

from pydantic import Field

from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.core.records import Strict
from xray_vqa.evaluation.records import ThresholdOrigin

FLAT_KEYS = ("exact_match_accuracy", "item_f1", "bleu", "rouge_l")


IntervalMethod = Literal["wilson", "wilson, effective n", "clopper-pearson", "cluster bootstrap"]
"""Whose formula made an interval; docs of each stand in `metrics.intervals` and `metrics.bootstrap`."""


class Estimate(Strict):
    """A number with the size of what it was measured on and its 95 % interval; null where nothing can be measured."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    method: IntervalMethod | None = None
    """Null where there is no interval."""


class ItemScores(Strict):
    """Named items against items that are there, counted over all scans or answers together (micro)."""

    precision: float | None
    recall: float | None
    f1: Estimate
    """`n` is the number of items that are there."""


class CorpusScore(Strict):
    """A corpus score by sacrebleu (BLEU, chrF2++), divided by 100."""

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
    bleu: CorpusScore
    """On long references only: one-word answers have no 4-grams, so that perfect ones score 0."""
    chrf: CorpusScore
    """chrF2++ on the same long references: of letters, and so fair to languages that inflect or have no spaces."""
    rouge_l: Estimate
    """Mean F1 on the same long references."""
    rouge_l_all: Estimate


class Proof(Strict):
    """What the bags prove at 95 % confidence, one-sided and exact (Clopper and Pearson 1934)."""

    pd_at_least: float | None
    pfa_at_most: float | None
    miss_rule_of_three: float | None
    """3 / n where nothing was missed: about the largest miss rate that such a run leaves open; null otherwise."""
    bags_for_pd_90: int | None
    """Threat bags that prove Pd >= 0.9 with the misses seen here, null where so many misses speak against it."""
    detectable_difference: float | None
    """The smallest change of Pd that so many other threat bags would show with a power of 0.8 at the 5 % level."""


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
    pfa_at_pd: dict[str, Estimate]
    """By the detection rate that is reached, the false alarm rate that it costs."""
    d_prime: float | None
    """z(Pd) - z(Pfa) at the threshold, with half an event added on each side (log-linear, Hautus 1995)."""
    calibration_error: float | None
    """As for all probes together, of this category's alone."""
    brier: float | None
    roc: list[tuple[float, float]]
    """(Pfa, Pd), thinned for drawing."""
    proof: Proof
    f1: float | None


class AtPrevalence(Strict):
    """What an operator meets where this share of the bags holds a threat, at the thresholds in force."""

    prevalence: float
    alarms_per_1000: float
    """Bags of 1,000 that are flagged, rightly or not."""
    threats_missed_per_million: float
    ppv: float | None
    """Share of flagged bags that hold a threat; null where none is flagged."""
    npv: float | None
    """Share of unflagged bags that hold none."""


class CostPoint(Strict):
    """Where the bags are sorted best when a miss costs so many false alarms and so many bags hold a threat."""

    prevalence: float
    miss_cost: float
    """In false alarms."""
    cost_per_1000: float
    """In false alarms per 1,000 bags, at the cheapest margin of this set's own ROC."""
    cost_at_thresholds: float
    """The same at the thresholds in force."""
    pd: float
    pfa: float
    """Of the cheapest margin."""


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
    det: list[tuple[float, float]]
    """(z(Pfa), z(miss rate)): the same points in normal deviates, without those at 0 or 1."""
    pfa_at_pd: dict[str, Estimate]
    d_prime: float | None
    proof: Proof
    at_prevalence: list[AtPrevalence]
    costs: list[CostPoint]


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


class DetectionScores(Strict):
    """COCO's mean average precision; a box's score is its category's corrected probability."""

    map: float | None
    """Mean over IoU 0.50, 0.55 ... 0.95 and the categories with annotated boxes."""
    map_50: float | None
    map_75: float | None
    by_category: dict[str, float]
    """`map` of each."""


class LocalisationScores(Strict):
    """Predicted boxes against annotated ones of the same category, matched one to one from the best overlap down."""

    accuracy: Estimate
    """Share of annotated boxes met with IoU 0.5 or more. An item that was not found or not placed is a miss."""
    mean_iou: float | None
    """Over the annotated boxes, 0 for those without a match."""
    num_predicted: int
    precision: float | None
    """Share of predicted boxes that meet an annotated one."""
    accuracy_at_iou: dict[str, Estimate]
    """`accuracy` by the overlap that is asked for: 0.3, 0.5 and 0.7."""
    mean_iou_estimate: Estimate
    """`mean_iou` with its interval."""
    average_precision: DetectionScores | None
    """Null where no box has a score."""


class ReliabilityBin(Strict):
    """Probes whose probability lies in one bin."""

    low: float
    high: float
    n: int
    mean_probability: float
    share_there: Estimate
    """With Wilson's interval, probes taken as independent."""


class CalibrationScores(Strict):
    """How far probabilities can be taken at their word, over all usable probes of annotated categories."""

    n: int
    error_equal_width: float | None
    """Expected calibration error over ten equally wide bins."""
    error_equal_mass: float | None
    """The same over ten bins of as many probes each; equal probabilities stay together."""
    brier: float | None
    reliability: list[ReliabilityBin]
    """The equally wide bins that hold probes."""
    risk_coverage: list[tuple[float, float]]
    """(share of probes kept, share of those that are decided wrongly at 0.5), the surest kept first."""
    area_under_risk_coverage: float | None


class CalibrationChange(Strict):
    """Raw and corrected probabilities side by side; equal where no calibration is in force."""

    before: CalibrationScores
    after: CalibrationScores


class SliceScores(Strict):
    """One value of a factor."""

    value: str
    num_scans: int
    pd: Estimate
    """Of items for a factor of items, else of threat bags; at the thresholds in force."""
    pfa: Estimate
    """Of clean bags; nothing for a factor of items."""


class Row(Strict):
    """One line of the comparison table."""

    name: str
    """`model`, `untuned`, `majority`, `blind`, or `guide`: what the guide expects, measured by nobody here."""
    what: str
    """What it is, in words and digests."""
    exact_match: Estimate
    item_f1: Estimate
    bag_auc: Estimate
    pd_at_pfa_5: Estimate
    localisation: Estimate
    bleu: Estimate = Estimate(value=None, n=0)
    rouge_l: Estimate = Estimate(value=None, n=0)


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
    by_language: dict[str, TextScores]
    screening: ScreeningScores
    localisation: LocalisationScores
    calibration: CalibrationChange
    slices: dict[str, list[SliceScores]]
    """By factor. One that no scan tells is absent."""
    unreadable: Unreadable
    scored: Scored
    notes: list[str] = []
