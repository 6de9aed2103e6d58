"""How good a set of pairs is, beside being true: balance, variety, and how far one gets without looking."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from xray_vqa.core.records import Strict, VQAPair
from xray_vqa.generation.draws import Draws

YES_RATIO_WANTED = (0.45, 0.55)
ENOUGH = 20
"""Questions from which a ratio is judged; three of five says nothing."""


class YesRatio(Strict):
    """How presence questions are answered."""

    yes: int
    no: int
    ratio: float


class BlindScore(Strict):
    """What somebody reaches who never sees an image."""

    n: int
    accuracy: float
    commonest: str
    commonest_share: float


class Quality(Strict):
    """Numbers of a pairs file. None of them depends on the order of the lines."""

    num_pairs: int
    num_images: int
    question_types: dict[str, int]
    type_shares: dict[str, float]
    category_counts: dict[str, int]
    """Pairs by category in their image."""
    yes_ratio: YesRatio | None
    """Over all presence questions."""
    yes_ratio_by_category: dict[str, YesRatio]
    any_threat_ratio: YesRatio | None
    """How `general` questions are answered: is anything prohibited in the bag?"""
    premise_true_ratio: float | None
    """Share of `absent` questions whose premise holds."""
    blind_accuracy: dict[str, BlindScore]
    """By type: the answer most often given to that type, topic and target, learned on one half of the images and tried
    on the other, both ways round."""
    distinct_question_ratio: float
    distinct_answer_ratio: float
    mean_answer_words: float
    warnings: list[str]


class QualityMeter:
    """Takes pairs one by one and keeps counts alone, so that a set of any size fits."""

    def __init__(self) -> None:
        self._pairs = 0
        self._images: set[str] = set()
        self._types: Counter[str] = Counter()
        self._categories: Counter[str] = Counter()
        self._yes: Counter[str] = Counter()
        self._no: Counter[str] = Counter()
        self._threats: Counter[bool] = Counter()
        self._premises: Counter[bool] = Counter()
        self._answers: dict[tuple[int, str, str], Counter[str]] = defaultdict(Counter)
        """Short answers by half, type and subject: topic and target."""
        self._questions: set[str] = set()
        self._answer_texts: set[str] = set()
        self._words = 0

    def add(self, pair: VQAPair) -> None:
        about = pair.metadata
        self._pairs += 1
        self._images.add(pair.image_path)
        self._types[about.question_type] += 1
        self._categories.update(about.categories)
        if about.question_type == "presence":
            (self._yes if about.short_answer == "yes" else self._no)[about.target] += 1
        if about.question_type == "general" and about.short_answer in ("yes", "no"):
            self._threats[about.short_answer == "yes"] += 1
        if about.question_type == "absent":
            self._premises[about.short_answer != "none"] += 1
        half = Draws("half", pair.image_path).below(2)
        subject = f"{about.topic} {about.target}".strip()
        self._answers[half, about.question_type, subject][about.short_answer] += 1
        self._questions.add(pair.question)
        self._answer_texts.add(pair.answer)
        self._words += len(pair.answer.split())

    def result(self) -> Quality:
        by_category = {
            category: _yes_ratio(self._yes[category], self._no[category])
            for category in sorted({*self._yes, *self._no})
        }
        total = _yes_ratio(self._yes.total(), self._no.total()) if self._yes or self._no else None
        premises = self._premises.total()
        return Quality(
            num_pairs=self._pairs,
            num_images=len(self._images),
            question_types=dict(sorted(self._types.items())),
            type_shares={name: round(count / self._pairs, 4) for name, count in sorted(self._types.items())},
            category_counts=dict(sorted(self._categories.items())),
            yes_ratio=total,
            yes_ratio_by_category=by_category,
            any_threat_ratio=_yes_ratio(self._threats[True], self._threats[False]) if self._threats else None,
            premise_true_ratio=round(self._premises[True] / premises, 4) if premises else None,
            blind_accuracy={name: self._blind(name) for name in sorted(self._types)},
            distinct_question_ratio=round(len(self._questions) / max(self._pairs, 1), 4),
            distinct_answer_ratio=round(len(self._answer_texts) / max(self._pairs, 1), 4),
            mean_answer_words=round(self._words / max(self._pairs, 1), 2),
            warnings=_warnings(total, by_category),
        )

    def _blind(self, question_type: str) -> BlindScore:
        overall: Counter[str] = Counter()
        halves: list[Counter[str]] = [Counter(), Counter()]
        for (half, name, _), answers in self._answers.items():
            if name == question_type:
                overall.update(answers)
                halves[half].update(answers)
        right = 0
        for (half, name, target), answers in self._answers.items():
            if name == question_type:
                learned = self._answers.get((1 - half, name, target)) or halves[1 - half]
                right += answers[_commonest(learned)]
        commonest = _commonest(overall)
        return BlindScore(
            n=overall.total(),
            accuracy=round(right / overall.total(), 4),
            commonest=commonest,
            commonest_share=round(overall[commonest] / overall.total(), 4),
        )


def measure(pairs: Iterable[VQAPair]) -> Quality:
    """Return the quality of some pairs."""
    meter = QualityMeter()
    for pair in pairs:
        meter.add(pair)
    return meter.result()


def _commonest(answers: Counter[str]) -> str:
    return min(answers, key=lambda answer: (-answers[answer], answer), default="")


def _yes_ratio(yes: int, no: int) -> YesRatio:
    return YesRatio(yes=yes, no=no, ratio=round(yes / (yes + no), 4))


def _warnings(total: YesRatio | None, by_category: dict[str, YesRatio]) -> list[str]:
    low, high = YES_RATIO_WANTED
    return [
        f"yes ratio of {name} is {ratio.ratio:.2f} ({ratio.yes} yes, {ratio.no} no); wanted {low} to {high}"
        for name, ratio in [*([("all presence questions", total)] if total else []), *by_category.items()]
        if ratio.yes + ratio.no >= ENOUGH and not low <= ratio.ratio <= high
    ]


def describe(quality: Quality) -> str:
    """Return the numbers as lines for a person."""
    lines = [
        f"pairs              {quality.num_pairs} about {quality.num_images} images",
        "types              " + _listed(quality.type_shares, "{:.0%}"),
    ]
    if quality.yes_ratio:
        lines.append(f"presence           {quality.yes_ratio.yes} yes, {quality.yes_ratio.no} no")
        judged = {name: r.ratio for name, r in quality.yes_ratio_by_category.items() if r.yes + r.no >= ENOUGH}
        if judged:
            lines.append(
                f"yes by category    {min(judged.values()):.2f} to {max(judged.values()):.2f} "
                f"({len(judged)} categories with {ENOUGH} questions or more)"
            )
    if quality.any_threat_ratio:
        lines.append(f"any threat         {quality.any_threat_ratio.yes} yes, {quality.any_threat_ratio.no} no")
    if quality.premise_true_ratio is not None:
        lines.append(f"true premises      {quality.premise_true_ratio:.0%} of the questions with a premise")
    blind = {name: score.accuracy for name, score in quality.blind_accuracy.items()}
    lines += [
        "right when blind   " + _listed(blind, "{:.0%}"),
        f"distinct           {quality.distinct_question_ratio:.1%} of questions, "
        f"{quality.distinct_answer_ratio:.1%} of answers; {quality.mean_answer_words:g} words an answer",
    ]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in quality.warnings)])


def _listed(values: dict[str, float], form: str) -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
