"""What needs no look and no thought: to give the commonest answer to each kind of question, or to pick any choice."""

from collections import Counter, defaultdict

from xray_vqa.core.records import VQAPair
from xray_vqa.core.taxonomy import canonical_category
from xray_vqa.generation.plan.items import NUM_OPTIONS
from xray_vqa.generation.reading import categories_in


class Majority:
    """Counts answers by kind of question: its type, and its topic where a type asks about several things.

    "Horizontal" is no answer to what kind of bag it is, so a type with topics has a commonest answer for each of them.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._choices: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        """Questions that offer choices, by how many."""

    def add(self, pair: VQAPair, placed: tuple[int, int] | None) -> None:
        """Take a pair that has a short answer, and its right_choice()."""
        kind = pair.metadata.question_type, pair.metadata.topic
        self._answers[kind][pair.metadata.short_answer] += 1
        if size := placed[1] if placed else _num_named(pair):
            self._choices[kind][size] += 1

    def share(self, question_type: str) -> float:
        """Return how many questions of a type are answered right this way."""
        right = asked = 0.0
        for kind, answers in self._answers.items():
            if kind[0] == question_type:
                choices, number = self._choices[kind], answers.total()
                most = max(answers.values())
                lucky = sum(count / size for size, count in sorted(choices.items()))
                right += max(most, lucky + most * (number - choices.total()) / number)
                asked += number
        return right / asked


def _num_named(pair: VQAPair) -> int:
    """Return how many choices a question offers of which its answer is one, where right_choice() cannot read them.

    As where an article or a comma stands otherwise than in a list. 0 where it offers none.
    """
    about = pair.metadata
    if about.topic == "concealer":  # things that no list has the names of; the plan offers always as many
        return NUM_OPTIONS
    if about.question_type != "identification":
        return 0
    named = categories_in(pair.question, about.language)
    return len(named) if len(named) > 1 and canonical_category(about.short_answer) in named else 0
