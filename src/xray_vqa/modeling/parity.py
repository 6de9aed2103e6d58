"""Whether weights that were written somewhere answer like those that they were made from.

Two sets of weights are asked the same about the same scans: every category's probe, and questions that are answered
word by word. What the model said before its fine-tuning is asked too: weights that answer like that have lost it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.decoding import TextGrammar, TreeDecoder
from xray_vqa.modeling.loading import LoadedModel

MAX_TOKENS = 24
"""Of an answer; long enough for a sentence to come apart."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is asked."""

    images: Sequence[Image.Image]
    questions: Sequence[Sequence[str]]
    """For each image."""
    source: str
    """Where the scans come from, for the record."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said."""

    log_odds: torch.Tensor
    """(images, categories) float32, the logit of yes less that of no."""
    texts: list[str]
    """Of all questions, image by image; greedy."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far weights of one form may be from those that they were made from. See docs/decisions/0015-exports.md."""

    mean_difference: float
    """Of the log-odds."""
    max_difference: float
    equal_decisions: float
    """Share of the probes on the same side of one half."""
    equal_texts: float


@dataclass(frozen=True, slots=True)
class Parity:
    """How alike two sets of weights answer."""

    source: str
    num_scans: int
    num_probes: int
    num_texts: int
    mean_difference: float
    max_difference: float
    equal_decisions: float
    equal_texts: float
    mean_change: float
    """How far fine-tuning moved the log-odds: the mean difference between the adapter and its base."""
    mean_from_base: float
    """The mean difference between what was written and the base."""

    def faults(self, bounds: Bounds) -> list[str]:
        """Return what is wrong, in words; nothing where the weights may be used."""
        found: list[str] = []
        if not self.mean_from_base > 2 * self.mean_difference:
            found.append(
                f"it is no further from the base (log-odds differ by {self.mean_from_base:.2g} on average) than twice "
                f"the way from the adapter ({self.mean_difference:.2g}): what was learnt is lost"
            )
        for name in ("mean_difference", "max_difference"):
            value, bound = getattr(self, name), getattr(bounds, name)
            if not value <= bound:
                found.append(f"the {name.replace('_', ' ')} of the log-odds is {value:.2g}, more than {bound:g}")
        for name in ("equal_decisions", "equal_texts"):
            value, bound = getattr(self, name), getattr(bounds, name)
            if not value >= bound:
                found.append(f"{value:.1%} {name.replace('_', ' ')}, less than {bound:.0%}")
        return found

    def record(self) -> dict[str, Any]:
        """Return the figures for a manifest."""
        return {
            key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in asdict(self).items()
        }


def ask(loaded: LoadedModel, trial: Trial) -> Said:
    """Return what a model says, one scan at a time so that any that can be served can be asked."""
    decoder, encoder = TreeDecoder(loaded), loaded.encoder
    probes = [encoder.probe(category) for category in CATEGORIES]
    log_odds: list[torch.Tensor] = []
    texts: list[str] = []
    for image, questions in zip(trial.images, trial.questions, strict=True):
        frame = torch.from_numpy(np.array(loaded.processor.resize(image)))
        state, (logits,) = decoder.open([frame], [probes])
        log_odds.append((logits[:, encoder.yes_id] - logits[:, encoder.no_id]).cpu())
        grammars = [TextGrammar(encoder, MAX_TOKENS) for _ in questions]
        decoder.extend(state, [[encoder.question(question) for question in questions]], [grammars])
        texts += [encoder.decode(grammar.tokens) for grammar in grammars]
    return Said(torch.stack(log_odds), texts)


def compare(written: Said, adapter: Said, base: Said, source: str) -> Parity:
    """Return how alike what was written and the adapter answer, and how far both are from the base.

    A log-odds value that is not a number counts as an endless difference.
    """
    num_scans, num_categories = adapter.log_odds.shape
    difference = (written.log_odds - adapter.log_odds).abs().nan_to_num(nan=math.inf)
    same_side = (written.log_odds > 0) == (adapter.log_odds > 0)
    same_text = [ours == theirs for ours, theirs in zip(written.texts, adapter.texts, strict=True)]
    return Parity(
        source=source,
        num_scans=num_scans,
        num_probes=num_scans * num_categories,
        num_texts=len(same_text),
        mean_difference=float(difference.mean()),
        max_difference=float(difference.max()),
        equal_decisions=float(same_side.float().mean()),
        equal_texts=sum(same_text) / len(same_text) if same_text else 1.0,
        mean_change=float((adapter.log_odds - base.log_odds).abs().mean()),
        mean_from_base=float((written.log_odds - base.log_odds).abs().mean()),
    )
