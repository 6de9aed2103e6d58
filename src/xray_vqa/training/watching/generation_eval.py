"""Evaluation by generation while training: some development scans are answered by the model as it stands.

A loss says how surprised a model is by the words of an answer, not whether what it would say is true. The weights are
used where they are, adapters and all; an evaluation draws no random number, so that it does not change the training.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import gather_object

from xray_vqa.config.train import LOSS_METRIC, TrainConfig
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.training.trainable import zero_stage

logger = logging.getLogger(__name__)


class Examiner(Protocol):
    """Has a model answer scans and scores the answers, as the evaluation stage does; `cli` brings it."""

    @property
    def num_scans(self) -> int: ...

    def measurable(self) -> frozenset[str]:
        """Return which metrics these scans can measure at all."""
        ...

    def answer(self, loaded: LoadedModel, numbers: Sequence[int]) -> list[Any]:
        """Return what a model in evaluation mode says about the scans with these numbers; it can be pickled."""
        ...

    def score(self, answers: Sequence[Any]) -> dict[str, float]:
        """Return metrics by name, all of them the better the greater."""
        ...


FindExaminer = Callable[[TrainConfig, Collection[Path]], Examiner]
"""From the run and the images of its development scans to an examiner over `eval_generate_images` of them."""


class GenerationEvaluation:
    """What the Trainer calls at each evaluation. The processes of a run divide the scans among themselves."""

    def __init__(self, examiner: Examiner, loaded: LoadedModel) -> None:
        self._examiner, self._loaded = examiner, loaded

    def __call__(self, rank: int, world: int) -> dict[str, float]:
        """Return the metrics, the same in every process, and how long they took."""
        started = time.perf_counter()
        # What training has compiled would be compiled again for every shape that a growing cache takes.
        with torch.compiler.set_stance("force_eager"):
            answers = self._examiner.answer(self._loaded, range(rank, self._examiner.num_scans, world))
        metrics = self._examiner.score(gather_object(answers))
        return metrics | {"generation_s": round(time.perf_counter() - started, 3)}


def choose_examiner(
    config: TrainConfig, images: Collection[Path], find_examiner: FindExaminer | None
) -> Examiner | None:
    """Return who examines the model while it trains, or None where nobody does.

    Args:
        config: The run.
        images: Of all development scans; without any nothing is evaluated.
        find_examiner: Finds one, where the caller has any.

    Raises:
        ConfigError: `metric_for_best_model` would not be measured.
    """
    if not images or not config.eval_generate_images:
        return None
    reason = "" if find_examiner else "nobody was given that could"
    if config.fsdp or zero_stage(config) == 3:
        reason = f"{config.deepspeed or 'fsdp'} divides the weights over the GPUs, and generating needs them whole"
    if reason or find_examiner is None:
        if config.metric_for_best_model != LOSS_METRIC:
            raise ConfigError(f"metric_for_best_model {config.metric_for_best_model} cannot be measured: {reason}")
        logger.warning("no evaluation by generation: %s", reason)
        return None
    examiner = find_examiner(config, images)
    measured = {LOSS_METRIC, *(f"eval_{name}" for name in examiner.measurable())}
    if config.metric_for_best_model not in measured:
        raise ConfigError(
            f"metric_for_best_model {config.metric_for_best_model} cannot be measured on these "
            f"{examiner.num_scans} development scans (false alarms, for instance, need clean bags); these can: "
            f"{', '.join(sorted(measured))}"
        )
    return examiner
