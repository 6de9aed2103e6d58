"""The figures of a pairs file: what they are, and as lines for a person."""

from collections.abc import Mapping
from typing import Any

from xray_vqa.core.records import Strict


def share_of(part: int, whole: int, default: float = 0.0) -> float:
    """Return a share, rounded, but never to 0 or 1 where it is not exactly that: a gate may want none at all."""
    share = part / whole if whole else default
    return share if share in (0.0, 1.0) else min(max(round(share, 6), 1e-6), 1 - 1e-6)


class YesRatio(Strict):
    """How presence questions are answered."""

    yes: int
    no: int
    ratio: float


class BlindScore(Strict):
    """What somebody reaches who never sees an image."""

    n: int
    accuracy: float
    """Of the answer most often given to that type, topic and target, learned on one half of the images and tried on
    the other, both ways round."""
    commonest: str
    commonest_share: float
    classifier: float
    """Accuracy of a classifier that reads the question alone, learned and tried in the same way."""
    majority: float
    """What needs no thought: the share of the commonest answer to each topic of the type, or of a lucky pick among the
    choices offered."""


class Checks(Strict):
    """What of the pairs is true, or at least not wrong. Shares are 0 to 1."""

    validity: float
    """Lines that are question-answer pairs, among all lines."""
    num_checkable: int
    """Pairs of the types whose answers follow from the annotations."""
    agreement: float | None
    """Those whose stated answer is the derived one, among the checkable."""
    contradiction_rate: float
    """Images whose pairs contradict each other."""
    unsupported_rate: float
    """Pairs whose answer names an item that the evidence does not hold."""
    leak_rate: float
    """Pairs that speak of annotations, files or labels, or whose question holds the answer."""
    faults: dict[str, int] = {}
    """By kind, as the validator found them."""


class Choices(Strict):
    """Where the right one stands among the choices that questions of one number of choices offer."""

    n: int
    by_place: dict[str, int]
    """By letter, or by place (A is the first) where the choices have none."""
    lead: float
    """Share of the place that is right most often, above an even share."""


class Duplicates(Strict):
    """Questions asked again. Shares are 0 to 1; case and punctuation do not matter."""

    num_different: int
    repeated: float
    """Pairs whose question was asked before, about whatever image. Asking many bags the same is no fault by itself."""
    near: float
    """Different questions that have a near copy among the others."""
    repeated_in_image: float
    """Pairs that ask an image what another pair of it asked in the same words."""
    near_in_image: float
    """Pairs that ask an image nearly in the words of another pair of it."""


class Diversity(Strict):
    """How varied the words are, on a sample of equal size from each set; two sets compare where it is as large."""

    num_sampled: int
    question_distinct_1: float | None
    question_distinct_2: float | None
    answer_distinct_1: float | None
    answer_distinct_2: float | None
    question_type_token_ratio: float | None
    """Mean over windows of 1,000 words."""
    answer_type_token_ratio: float | None
    opening_entropy_bits: float
    """Of the first three words of all questions."""
    num_openings: int
    question_type_entropy_bits: float
    commonest_openings: dict[str, int]


class LengthSpread(Strict):
    """Words an answer."""

    mean: float
    deviation: float
    p5: int
    median: int
    p95: int


class Making(Strict):
    """What the making of the pairs took, where their `_stats.json` says it."""

    provider: str = ""
    model: str = ""
    prompt_version: str = ""
    plan_version: str = ""
    seed: int | None = None
    num_rejected: int = 0
    rejected_by_category: dict[str, int] = {}
    """Planned pairs that never got words that hold, by what is in the bag."""
    rejected_by_kind: dict[str, int] = {}
    rejected_examples: list[str] = []
    refusals: dict[str, int] = {}
    """By step of the ladder and category: `anthropic: Gun`."""
    num_tokens: dict[str, int] = {}
    cost_usd: float = 0.0
    lost_usd: float = 0.0

    @property
    def refused_by_category(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for name, count in self.refusals.items():
            category = name.rpartition(": ")[2]
            counts[category] = counts.get(category, 0) + count
        return counts

    @classmethod
    def from_stats(cls, stats: Mapping[str, Any]) -> "Making":
        """Read a stats file; of an older version's it takes what is there."""
        tokens = {name: stats.get(f"{name}_tokens", 0) for name in ("input", "cache_read", "cache_write", "output")}
        return cls(
            provider=stats.get("provider", ""),
            model=stats.get("model", ""),
            prompt_version=stats.get("prompt_version", ""),
            plan_version=stats.get("plan_version", ""),
            seed=stats.get("seed"),
            num_rejected=stats.get("rejected_pairs", 0),
            rejected_by_category=stats.get("rejected_by_category", {}),
            rejected_by_kind=stats.get("rejected_by_kind", {}),
            rejected_examples=stats.get("rejected_examples", []),
            refusals=stats.get("refusals", {}),
            num_tokens={name: count for name, count in tokens.items() if count},
            cost_usd=stats.get("cost_usd", 0.0),
            lost_usd=stats.get("calls_without_reply_usd_at_most", 0.0),
        )


class Yield(Strict):
    """What was kept of what was planned, and what a kept pair took."""

    num_rejected: int
    rejected: float
    """Share of the planned pairs that never got words that hold."""
    rejected_by_category: dict[str, float]
    """The same among the pairs about bags with that category; `none` stands for clean bags."""
    refusals_by_category: dict[str, int]
    tokens_per_pair: float
    usd_per_pair: float


class Gate(Strict):
    """One figure, what was wanted of it, and whether it holds."""

    name: str
    title: str
    wanted: str
    found: str
    passed: bool | None
    """None where it is not judged: no threshold is set, or there are too few questions."""
    breach: str = ""
    """What is wrong, in a sentence."""


class Quality(Strict):
    """Numbers of a pairs file. None of them depends on the order of the lines."""

    num_pairs: int
    num_images: int
    question_types: dict[str, int]
    type_shares: dict[str, float]
    type_shares_wanted: dict[str, float]
    """As the plan would have them, if the scans allow."""
    category_counts: dict[str, int]
    """Pairs by category in their image."""
    languages: dict[str, int]
    writers: dict[str, int]
    """Pairs by kind of provider and model."""
    yes_ratio: YesRatio | None
    """Over all presence questions."""
    yes_ratio_by_category: dict[str, YesRatio]
    any_threat_ratio: YesRatio | None
    """How `general` questions are answered: is anything prohibited in the bag?"""
    premise_true_ratio: float | None
    """Share of `absent` questions whose premise holds."""
    blind_accuracy: dict[str, BlindScore]
    """By type that has short answers."""
    choices: dict[str, Choices]
    """By number of choices."""
    checks: Checks
    duplicates: Duplicates
    diversity: Diversity
    answer_words: LengthSpread
    distinct_question_ratio: float
    distinct_answer_ratio: float
    mean_answer_words: float
    making: Yield | None = None
    """None where no `_stats.json` tells."""
    gates: list[Gate] = []
    warnings: list[str] = []
    """What breached a gate."""


def describe(quality: Quality) -> str:
    """Return the numbers as lines for a person."""
    checks, copies, varied = quality.checks, quality.duplicates, quality.diversity
    lines = [
        f"pairs              {quality.num_pairs} about {quality.num_images} images",
        "types              " + _listed(quality.type_shares, "{:.0%}"),
    ]
    if quality.num_pairs:
        agreement = (
            "nothing to derive" if checks.agreement is None else f"{checks.agreement:.2%} agree with annotations"
        )
        lines += [
            f"checked            {checks.validity:.2%} valid, {agreement}; contradictions in "
            f"{checks.contradiction_rate:.2%} of images, {checks.unsupported_rate:.2%} name what is not there, "
            f"{checks.leak_rate:.2%} leak"
        ]
    if quality.yes_ratio:
        lines.append(f"presence           {quality.yes_ratio.yes} yes, {quality.yes_ratio.no} no")
        told = next((gate.found for gate in quality.gates if gate.name == "yes_ratio"), "")
        lines.append(f"yes by category    {told}; {len(quality.yes_ratio_by_category)} categories")
    if quality.any_threat_ratio:
        lines.append(f"any threat         {quality.any_threat_ratio.yes} yes, {quality.any_threat_ratio.no} no")
    if quality.premise_true_ratio is not None:
        lines.append(f"true premises      {quality.premise_true_ratio:.0%} of the questions with a premise")
    blind = [
        f"{name} {score.classifier:.0%} (majority {score.majority:.0%})"
        for name, score in quality.blind_accuracy.items()
    ]
    lines += [
        "right when blind   " + ", ".join(blind),
        f"distinct           {quality.distinct_question_ratio:.1%} of questions, "
        f"{quality.distinct_answer_ratio:.1%} of answers; {quality.mean_answer_words:g} words an answer",
        f"asked again        {copies.repeated_in_image:.1%} of pairs in one image, {copies.near_in_image:.1%} nearly; "
        f"{copies.near:.1%} of {copies.num_different} different questions have a near copy",
        f"openings           {varied.num_openings} of three words, {varied.opening_entropy_bits:.1f} bits",
    ]
    if quality.making and quality.making.usd_per_pair:
        lines.append(
            f"a kept pair        {quality.making.tokens_per_pair:.0f} tokens, ${quality.making.usd_per_pair:.5f}"
        )
    judged = [gate for gate in quality.gates if gate.passed is not None]
    lines.append(f"gates              {sum(bool(gate.passed) for gate in judged)} of {len(judged)} passed")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in quality.warnings)])


def _listed(values: dict[str, float], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
