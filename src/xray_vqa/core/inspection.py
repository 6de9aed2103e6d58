"""What an inspection is made of: scores, findings, the decision and the answer that goes out."""

from dataclasses import dataclass, field
from enum import Enum
from functools import total_ordering

from PIL import Image

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import Strict


@total_ordering
class RiskLevel(Enum):
    """How bad it can be. Ordered, so that `max()` is the strictest; plain strings would rank "high" under "medium"."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, RiskLevel):
            return NotImplemented
        order = list(RiskLevel)
        return order.index(self) < order.index(other)


class Action(Enum):
    """What the officer is asked to do."""

    CLEAR = "clear"
    MANUAL_INSPECTION = "manual_inspection"
    DETAIN = "detain"


class ScoreState(Enum):
    """Whether the model said something that can be used."""

    VALUE = "value"
    UNSURE = "unsure"
    """The engine answered, but a probability cannot be read from its answer."""
    MISSING = "missing"
    """The category was not looked for, or the engine did not answer."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the model says of one category. `probability` is 0 to 1, and None unless the state is VALUE."""

    state: ScoreState
    probability: float | None = None

    def __post_init__(self) -> None:
        usable = self.probability is not None and 0.0 <= self.probability <= 1.0
        if usable != (self.state is ScoreState.VALUE):
            raise ValueError(f"a score of state {self.state.value} cannot have the probability {self.probability}")

    @classmethod
    def of(cls, probability: float) -> "Score":
        """Return a score with a value; NaN and numbers outside 0 to 1 become `unsure`, never a low score."""
        if 0.0 <= probability <= 1.0:
            return cls(ScoreState.VALUE, float(probability))
        return UNSURE


UNSURE = Score(ScoreState.UNSURE)
MISSING = Score(ScoreState.MISSING)


@dataclass(frozen=True, slots=True)
class Finding:
    """One prohibited item. Region and box are None where the model is sure that it is there and not where."""

    category: str
    probability: float
    box: Box | None = None
    """In pixels of the scan as it was sent."""
    region: str | None = None


class DeclaredItem(Strict):
    """What became of one line of the declaration."""

    item: str
    status: str
    """`prohibited` (it may not be carried, declared or not), `unclear` (something prohibited is named among other
    words), `over_count` (the model sees more of it), `missing` (it looks for it and does not see it), `found`,
    `unknown` (words that mean nothing to us) or `not_verified` (goods that the model does not look for)."""
    category: str | None = None
    quantity: int | None = None
    """How many were declared; null where the line gives no number."""
    num_found: int | None = None
    """How many of the category the model sees; null for goods that it does not look for."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One X-ray image of one bag and what was declared of it; None where no declaration was made."""

    scan_id: str
    image: Image.Image
    """RGB, as `core.images` returns it."""
    declared_items: tuple[str, ...] | None = None
    lane: str | None = None
    """The lane that it stands on, by the site's own name; None where nobody said."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a decision may rest on."""

    scores: dict[str, Score]
    """One for each category that was looked for."""
    findings: tuple[Finding, ...] = ()
    input_faults: tuple[str, ...] = ()
    """Why the image does not look like a scan; see `core.images.input_faults`."""
    engine_faults: tuple[str, ...] = ()
    """Why the model's part cannot be relied on: `timeout`, `unavailable`, `unreadable`, ..."""
    declared_items: tuple[str, ...] | None = None
    covered_categories: frozenset[str] = frozenset()
    """What the model's manifest says that it was trained and evaluated on."""
    calibrated: bool = False
    """Whether the calibration file matches the model, adapter, engine, dtype, processor and prompt in use."""
    thresholds: dict[str, float] = field(default_factory=dict[str, float])
    """The calibration's, by category; empty where none matches."""
    stopped: bool = False
    """Whether the stop switch is on for this lane."""


class AppliedRule(Strict):
    """A rule of the policy that had a word in a decision."""

    rule: str
    """Its name in `core.policy.decision`: `finding`, `undeclared`, `not_calibrated`, ..."""
    risk_level: RiskLevel
    """What it calls for; the strictest of all counts."""
    about: tuple[str, ...] = ()
    """The categories or declared lines that it speaks of."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy calls for."""

    risk_level: RiskLevel
    action: Action
    match_declaration: bool
    degraded: bool
    reasons: tuple[str, ...]
    """Names of the conditions for `clear` that do not hold; empty for a cleared bag."""
    declaration: tuple[DeclaredItem, ...]
    policy_version: str
    rules: tuple[AppliedRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """The answer for one scan."""

    scan_id: str
    findings: tuple[Finding, ...]
    scores: dict[str, Score]
    decision: Decision
    reasoning: str
    processing_time_ms: float
    screened_for: tuple[str, ...]
    """The categories that were looked for and that the model covers."""
    model_version: str
    prompt_version: str
    timings_ms: dict[str, float] = field(default_factory=dict[str, float])
    engine_faults: tuple[str, ...] = ()
    """Why the inspection is degraded, as in `Evidence`; empty when it is not."""
    thresholds: dict[str, float] = field(default_factory=dict[str, float])
    """The calibration's, as in `Evidence`."""
