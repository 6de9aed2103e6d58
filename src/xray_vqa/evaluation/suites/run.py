"""Runs the benchmarks of others: through the same importers, engines and predictions files as everything else."""

from pathlib import Path

from xray_vqa.config.loading import load_policy
from xray_vqa.core.jsonl import write_json
from xray_vqa.core.manifest import make_manifest, sha256_file, write_manifest
from xray_vqa.core.records import Strict
from xray_vqa.dataset.importers import FORMATS, open_folder, read_source
from xray_vqa.dataset.importing import ImportOptions, ImportReport, import_source
from xray_vqa.errors import ConfigError
from xray_vqa.evaluation.baselines import BlindEngine
from xray_vqa.evaluation.evaluate import running
from xray_vqa.evaluation.predict import predict
from xray_vqa.evaluation.records import OperatingPoint
from xray_vqa.evaluation.score import rounded
from xray_vqa.evaluation.suites.polling import write_poll
from xray_vqa.evaluation.suites.sting_bee import BenchmarkResults, read_benchmark, score_benchmark


class SuiteSettings(Strict):
    """What is asked of what."""

    questions: Path
    answers: Path
    images: Path
    names: Path | None = None
    model: str = "outputs/qwen25vl_stcray_lora"
    blind: bool = False
    output: Path = Path("results/sting_bee.json")
    max_images: int | None = None
    engine: str = "transformers"
    device: str | None = None


def run_sting_bee(settings: SuiteSettings) -> BenchmarkResults:
    """Ask a model the benchmark's questions, or what is missing of them, and write its scores.

    Raises:
        ModelUnavailable: The model cannot be loaded or fails on one image after another.
        DatasetError: The benchmark's files are missing or broken.
    """
    if settings.output.suffix != ".json":
        raise ConfigError(f"output {settings.output}: a .json file is expected; predictions go to a folder beside it")
    benchmark = read_benchmark(
        settings.questions, settings.answers, settings.images, settings.names, settings.max_images
    )
    folder = settings.output.with_suffix("")
    limit = f"-images{settings.max_images}" if settings.max_images is not None else ""
    paths = [folder / f"predictions{limit}.jsonl"]
    policy = load_policy(None)
    with running(settings.engine, settings.model, settings.device) as (engine, info):
        point = OperatingPoint.of(info, policy, policy.required_categories)
        predictions = predict(engine, info, benchmark.data, paths[0], point, place=False)
        blind = None
        if settings.blind:
            paths.append(folder / f"blind{limit}.jsonl")
            grey = BlindEngine(engine)
            blind = predict(grey, info, benchmark.data, paths[1], point, variant="blind", place=False)
    results = BenchmarkResults.model_validate(rounded(score_benchmark(benchmark, predictions, blind)))
    write_json(settings.output, results.model_dump(mode="json"))
    made = make_manifest(
        "sting-bee",
        config=settings.model_dump(mode="json") | {"identity": info.identity.model_dump(mode="json")},
        inputs=benchmark.data.inputs | {str(path): sha256_file(path) for path in paths},
        outputs={settings.output.name: sha256_file(settings.output)},
        counts={"images": len(benchmark.data.scans), "questions": benchmark.data.num_questions},
    )
    write_manifest(settings.output, made)
    return results


def make_coco_test_set(source_dir: Path, root: Path, seed: int = 0) -> tuple[ImportReport, Path, dict[str, int]]:
    """Import a COCO detection set as test scans alone, write presence questions about it and return where they are.

    Labels map through the taxonomy's aliases; unknown ones become UNLISTED and are named in the report.

    Raises:
        ConfigError: The folders cannot be used, or the root holds something else.
        DatasetError: There is no COCO file, or not a scan could be read.
    """
    source = read_source(open_folder(source_dir), FORMATS["coco"])
    words = {scan.split for scan in source.scans if scan.split}
    report = import_source(source, root, ImportOptions(split_map=dict.fromkeys(words, "test"), test_share=0.999999))
    pairs_path = root.with_name(f"{root.name}_poll.jsonl")
    return report, pairs_path, write_poll(root, "test", pairs_path, seed)
