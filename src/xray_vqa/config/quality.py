"""What a set of question-answer pairs has to reach: the gates of the quality report."""

from pathlib import Path

from pydantic import Field, model_validator

from xray_vqa.config.loading import find_config, load_config
from xray_vqa.core.records import Strict


class PairGates(Strict):
    """Thresholds of the quality report; null where a figure is shown and not judged. Shares are 0 to 1."""

    min_questions: int = Field(default=20, ge=1)
    """Questions from which a ratio is judged; three of five says nothing."""
    min_validity: float | None = Field(default=1.0, ge=0, le=1)
    """Share of lines that are question-answer pairs."""
    min_agreement: float | None = Field(default=1.0, ge=0, le=1)
    """Share of checkable pairs whose answer follows from the annotations."""
    max_contradictions: float | None = Field(default=0.0, ge=0, le=1)
    """Share of images whose pairs contradict each other."""
    max_unsupported: float | None = Field(default=0.0, ge=0, le=1)
    """Share of pairs whose answer names an item that its evidence does not hold."""
    max_leaks: float | None = Field(default=0.0, ge=0, le=1)
    """Share of pairs that give away annotations, a file name or the answer."""
    yes_ratio: tuple[float, float] | None = (0.45, 0.55)
    """Of presence questions, overall and for each category."""
    true_premise_ratio: tuple[float, float] | None = (0.45, 0.55)
    """Of `absent` questions."""
    max_blind_margin: float | None = Field(default=0.10, ge=0, le=1)
    """How far one may get above the majority answer without looking."""
    min_blind_questions: int = Field(default=200, ge=2)
    """Questions of a type from which a blind classifier is judged."""
    max_choice_lead: float | None = Field(default=0.10, ge=0, le=1)
    """How far the right choice may favour a letter or place."""
    max_repeats_in_image: float | None = Field(default=0.0, ge=0, le=1)
    """Share of pairs that ask an image the same again."""
    max_near_repeats_in_image: float | None = Field(default=0.05, ge=0, le=1)
    """Share of pairs that ask an image nearly the same again."""
    max_repeats: float | None = Field(default=None, ge=0, le=1)
    """Share of pairs whose question was asked before, about whatever image."""
    max_near_repeats: float | None = Field(default=None, ge=0, le=1)
    """Share of the different questions that have a near copy."""
    near_similarity: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity of word pairs from which two questions are near copies."""
    min_distinct_2: float | None = Field(default=None, ge=0, le=1)
    """Different word pairs among those of 1,000 questions."""
    min_opening_entropy_bits: float | None = Field(default=None, ge=0)
    """Entropy of the first three words of questions."""
    max_type_deviation: float | None = Field(default=None, ge=0, le=1)
    """How far a type's share may be from the plan's."""
    max_rejected: float | None = Field(default=None, ge=0, le=1)
    """Share of planned pairs that never got words that hold."""
    max_rejected_of_category: float | None = Field(default=None, ge=0, le=1)
    """The same among the pairs about bags with one category."""
    max_usd_per_pair: float | None = Field(default=None, ge=0)
    """Dollars a kept pair."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "PairGates":
        for name in ("yes_ratio", "true_premise_ratio"):
            ratio = getattr(self, name)
            if ratio and not 0 <= ratio[0] <= ratio[1] <= 1:
                raise ValueError(f"{name} is {list(ratio)}; give the lower share and the higher one, 0 to 1")
        return self


def load_gates(path: Path | None = None) -> PairGates:
    """Return the gates in a file, by default `configs/pair_quality.yaml`. Raises ConfigError."""
    return load_config(PairGates, path or find_config("pair_quality.yaml"))
