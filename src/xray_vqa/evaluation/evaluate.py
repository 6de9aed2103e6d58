"""The evaluation stage from top to bottom: calibrate if asked, predict, score, report.

Every part reads files and writes files, so that each can be stopped, repeated and looked at on its own:
`results/evaluation.json` has its predictions in `results/evaluation/`.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from xray_vqa.config.loading import load_policy
from xray_vqa.core.calibration import CALIBRATION_NAME
from xray_vqa.core.jsonl import read_json, write_json
from xray_vqa.core.manifest import make_manifest, sha256_file, write_manifest
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import Strict
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError, DatasetError
from xray_vqa.evaluation.baselines import BLIND_TOGETHER, BlindEngine, fit_majority, training_pairs_beside
from xray_vqa.evaluation.calibrate import CalibrationAim, fit_calibration, save_calibration
from xray_vqa.evaluation.predict import Variant, predict, predictions_name, read_predictions
from xray_vqa.evaluation.records import OperatingPoint, PredictionsHeader, ScanPrediction
from xray_vqa.evaluation.results import EvaluationResults
from xray_vqa.evaluation.score import Contender, rounded, score
from xray_vqa.evaluation.shards import join_shards, part_of, shard_path
from xray_vqa.evaluation.testset import EvaluationSet, load_development_set, load_held_out, load_test_set
from xray_vqa.evaluation.trust import check_complete, find_leakage, note_on_near_copies, notes_on_classes
from xray_vqa.inference.engine import Engine, EngineInfo
from xray_vqa.inference.engines import open_engine

logger = logging.getLogger(__name__)


class EvaluationSettings(Strict):
    """What is measured on what. The defaults are the guide's."""

    model: str = "outputs/qwen25vl_stcray_lora"
    test_file: Path = Path("data/stcray_vqa_val.jsonl")
    output: Path = Path("results/evaluation.json")
    train_file: Path | None = None
    """Pairs that the majority is fitted on. Unset: those beside the test file, if they are there."""
    policy: Path | None = None
    """Unset: `configs/policy.yaml`."""
    engine: str = "transformers"
    device: str | None = None
    baseline: str | None = None
    """The untuned model that the tuned one is compared with. Unset: the base of an adapter; `none`: no such row."""
    blind: bool = True
    """Whether the same model is shown grey images."""
    allow_leakage: bool = False
    """Score although test scans were trained on, and say so in the results."""
    near_copies: bool = True
    """Whether training images are looked at for test scans that look like one: about a millisecond each, once."""
    shard: tuple[int, int] | None = None
    """(i, n): predict the i-th of n parts alone, i from 1."""
    calibrate: bool = False
    aim: CalibrationAim = CalibrationAim()
    """What a calibration is to be good for."""
    max_samples: int | None = None
    max_images: int | None = None
    batch_size: int = 1
    """Scans that the engine gets at once."""
    heat_maps: bool = False
    """Whether the report shows where the model looked."""
    report: Path | None = None
    """Where a page with the results and some scans is written."""

    def predictions_path(self, variant: Variant) -> Path:
        """Return where predictions stand."""
        limits = (None, None) if variant == "development" else (self.max_samples, self.max_images)
        path = self.output.with_suffix("") / predictions_name(variant, *limits)
        return path if self.shard is None else shard_path(path, self.shard)

    def baseline_model(self) -> str | None:
        """Return the untuned model to predict with: the one named or the base of an adapter, if it is at hand."""
        if self.baseline is not None:
            return None if self.baseline == "none" else self.baseline
        return base_of_adapter(self.model) if self.engine == "transformers" else None


def evaluate(
    settings: EvaluationSettings, stage: Literal["predict", "score"] | None = None
) -> EvaluationResults | None:
    """Run both stages, or one of them, and return the results if they were scored.

    Raises:
        ModelUnavailable: The model cannot be loaded or fails on one scan after another.
        DatasetError: The test file or its dataset is missing or broken.
        Incomplete: Scoring was asked for and predicting has not finished.
    """
    if settings.output.suffix != ".json":
        raise ConfigError(f"output {settings.output}: a .json file is expected; predictions go to a folder beside it")
    if settings.shard is not None and (stage != "predict" or settings.calibrate):
        raise ConfigError("a shard is for `xray-vqa evaluate predict` without --calibrate; calibrate first, score last")
    policy = load_policy(settings.policy)
    data = load_test_set(settings.test_file, settings.max_samples, settings.max_images)
    train_file = settings.train_file or training_pairs_beside(settings.test_file)
    leakage = find_leakage(data, train_file)
    if leakage and not settings.allow_leakage:
        raise DatasetError(
            f"{settings.test_file}: {leakage}; nothing is scored on scans that were trained on "
            "(--allow-leakage does, and says so in the results)"
        )
    if settings.shard is not None:
        data = part_of(data, settings.shard)
    if stage != "score":
        predict_all(settings, data, policy)
    return None if stage == "predict" else score_all(settings, data, policy, leakage)


def predict_all(settings: EvaluationSettings, data: EvaluationSet, policy: Policy) -> None:
    """Write the predictions of the model, and of what it is compared with."""
    categories = looked_for(data, policy)
    logger.info("%d scans, %d questions from %s", len(data.scans), data.num_questions, settings.test_file)
    with running(settings.engine, settings.model, settings.device) as (engine, info):
        if settings.calibrate:
            info = calibrate(settings, engine, info, load_development_set(data.root), policy)
        point = OperatingPoint.of(info, policy, categories)
        size = settings.batch_size
        predict(engine, info, data, settings.predictions_path("model"), point, batch_size=size)
        if settings.blind:
            blind, path = BlindEngine(engine), settings.predictions_path("blind")
            predict(blind, info, data, path, point, variant="blind", batch_size=max(size, BLIND_TOGETHER))
    baseline = settings.baseline_model()
    if baseline:
        with running(settings.engine, baseline, settings.device) as (engine, info):
            point = OperatingPoint.of(info, policy, categories)
            path, size = settings.predictions_path("untuned"), settings.batch_size
            predict(engine, info, data, path, point, variant="untuned", batch_size=size)


def calibrate(
    settings: EvaluationSettings, engine: Engine, info: EngineInfo, data: EvaluationSet, policy: Policy
) -> EngineInfo:
    """Fit a calibration on development scans, write it beside the weights and return what runs with it in force."""
    without = replace(info, calibration=None)
    point = OperatingPoint.of(without, policy, data.annotated)
    path = settings.predictions_path("development")
    size = settings.batch_size
    predictions = predict(engine, without, data, path, point, variant="development", place=False, batch_size=size)
    digest = next(iter(data.inputs.values()))[:12]
    measured_on = f"{len(predictions)} development scans of {data.root.name}/train (annotations {digest})"
    simulated = any(scan.record.is_simulated for scan in data.scans)
    calibration = fit_calibration(predictions, info, measured_on, simulated=simulated, aim=settings.aim)
    save_calibration(weights_dir_of(settings.engine, settings.model), calibration)
    return replace(info, calibration=calibration)


def calibrate_trained(model_dir: Path, train_file: Path, eval_file: Path | None = None) -> None:
    """Fit the calibration of a model that has just been trained, on what its run held out, and write it beside it.

    Raises:
        DatasetError: Nothing was held out, or nothing that a calibration can be fitted on.
        ModelUnavailable: The model cannot be loaded, or fails on one scan after another.
    """
    settings = EvaluationSettings(model=str(model_dir), output=model_dir / CALIBRATION_NAME)
    data = load_held_out(train_file, eval_file)
    with running(settings.engine, settings.model, settings.device) as (engine, info):
        calibrate(settings, engine, info, data, load_policy())


def score_all(
    settings: EvaluationSettings, data: EvaluationSet, policy: Policy, leakage: str = ""
) -> EvaluationResults:
    """Score the predictions that stand beside the output, write the results and their manifest, and the report."""
    path = settings.predictions_path("model")
    join_shards(path, data)
    predictions, header, manifest = read_predictions(path)
    if sorted(manifest.inputs.values()) != sorted(data.inputs.values()):
        raise DatasetError(f"{path}: made from other pairs or annotations; run `xray-vqa evaluate predict` again")
    check_complete(path, predictions, data)
    inputs = {str(path): sha256_file(path)}
    others: list[Contender] = []
    notes = [f"LEAKAGE, these numbers are too good: {leakage}"] if leakage else []
    notes += notes_on_classes(data)
    train_file = settings.train_file or training_pairs_beside(settings.test_file)
    if settings.near_copies:
        cache_dir = settings.output.with_suffix("")
        notes.append(note_on_near_copies(data, train_file, cache_dir, min(os.cpu_count() or 1, 8)))
    else:
        notes.append("leakage was looked for by bytes and bags alone (--no-near-copies)")
    untuned = None if settings.baseline == "none" else _other(settings, "untuned", data, header, notes)
    if untuned:
        how = "" if untuned[1].point.calibration else ", at the policy's thresholds for want of a calibration"
        what = f"{untuned[1].model_name}, not fine-tuned{how}"
        others.append(Contender("untuned", what, untuned[0], untuned[1].point))
    elif settings.baseline == "none":
        notes.append("no row of the untuned model: left out with --baseline none")
    if train_file:
        majority = fit_majority(train_file)
        what = f"the commonest answer to each type of question in {majority.num_pairs} training pairs"
        point = majority.operating_point(list(header.point.thresholds))
        others.append(Contender("majority", what, majority.predict(predictions), point))
        inputs[str(train_file)] = sha256_file(train_file)
    else:
        notes.append(f"no training pairs beside {settings.test_file} (see --train-file), so no majority row")
    blind = _other(settings, "blind", data, header, notes) if settings.blind else None
    if blind:
        others.append(Contender("blind", "the same model on grey images", blind[0], blind[1].point))
    else:
        why = "it was not predicted" if settings.blind else "left out with --no-blind"
        notes.append(f"no row of the same model on grey images ({why}): nobody can say what looking is worth")
    results = score(predictions, header, manifest, others, notes, workers=os.cpu_count() or 1)
    write_json(settings.output, rounded(results))
    made = make_manifest(
        "evaluate",
        config=settings.model_dump(mode="json"),
        inputs=inputs | data.inputs,
        outputs={settings.output.name: sha256_file(settings.output)},
        counts={"scans": len(predictions), "questions": data.num_questions},
        split=data.split,
    )
    write_manifest(settings.output, made)
    logger.info("results in %s, predictions in %s", settings.output, path.parent)
    if settings.report:
        from xray_vqa.evaluation.report import report_run

        report_run(
            settings.report, settings.output, results, predictions, header, manifest, policy,
            root=data.root, model=settings.model, device=settings.device, heat_maps=settings.heat_maps,
        )  # fmt: skip
    return results


def _other(
    settings: EvaluationSettings,
    variant: Variant,
    data: EvaluationSet,
    model: PredictionsHeader,
    notes: list[str],
) -> tuple[list[ScanPrediction], PredictionsHeader] | None:
    """Return another row's predictions; None where there are none, or they cannot stand beside the model's."""
    path = settings.predictions_path(variant)
    join_shards(path, data)
    if not path.is_file():
        return None
    predictions, header, manifest = read_predictions(path)
    names = ("engine", "dtype", "processor_version", "prompt_version")
    differing = [name for name in names if getattr(header.identity, name) != getattr(model.identity, name)]
    if variant == "blind" and (header.identity, header.point) != (model.identity, model.point):
        differing = differing or ["model or calibration"]
    if sorted(manifest.inputs.values()) != sorted(data.inputs.values()):
        differing.append("pairs or annotations")
    if differing:
        told = f"{path} is of another {', '.join(differing).replace('_', ' ')} and is left out"
        logger.warning("%s; `xray-vqa evaluate predict` makes it anew", told)
        notes.append(told)
        return None
    check_complete(path, predictions, data)
    return predictions, header


def base_of_adapter(model: str) -> str | None:
    """Return the base model that an adapter folder names, if it is nano or a folder that is there; else None."""
    config = Path(model) / "adapter_config.json"
    if not config.is_file():
        return None
    content = read_json(config)
    base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    at_hand = isinstance(base, str) and (base == "nano" or Path(base).is_dir())
    if not at_hand:
        logger.info("the base %s of %s is not at hand: no untuned row; --baseline %s fetches it", base, model, base)
    return base if isinstance(base, str) and at_hand else None


def looked_for(data: EvaluationSet, policy: Policy) -> tuple[str, ...]:
    """Return the categories to look for: what an inspection needs and what the dataset's source labels."""
    wanted = {*policy.required_categories, *data.annotated}
    return tuple(name for name in CATEGORIES if name in wanted)


@contextmanager
def running(name: str, model: str, device: str | None) -> Iterator[tuple[Engine, EngineInfo]]:
    """Open and start an engine, and release it at the end. Raises ModelUnavailable."""
    engine = open_engine(name, model, device=device)
    info = engine.start()
    logger.info("%s on %s in %s", info.model_version, info.device, info.identity.dtype)
    try:
        yield engine, info
    finally:
        engine.close()


def weights_dir_of(engine: str, model: str) -> Path:
    """Return the folder that a model's calibration stands in: that of its weights, or of its adapter's."""
    path = Path(model)
    if path.is_dir():
        return path
    if engine == "scripted":
        return path.parent
    from xray_vqa.modeling.loading import resolve_model_dir

    return resolve_model_dir(model)


def flat_keys(results: EvaluationResults) -> dict[str, float | None]:
    """Return the guide's four numbers."""
    return {
        "exact_match_accuracy": results.exact_match_accuracy,
        "item_f1": results.item_f1,
        "bleu": results.bleu,
        "rouge_l": results.rouge_l,
    }
