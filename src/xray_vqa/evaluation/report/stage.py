"""What the evaluation stage calls: page, Markdown and the evidence in the model's folder, from what stands on disk."""

import logging
from collections.abc import Sequence
from pathlib import Path

from xray_vqa.core.manifest import Manifest, read_manifest
from xray_vqa.core.policy import Policy
from xray_vqa.evaluation.records import PredictionsHeader, ScanPrediction
from xray_vqa.evaluation.report.about import about_run
from xray_vqa.evaluation.report.evidence import write_evidence
from xray_vqa.evaluation.report.gallery import choose_scans
from xray_vqa.evaluation.report.heat import heat_maps_of
from xray_vqa.evaluation.report.markdown import write_markdown
from xray_vqa.evaluation.report.page import write_report
from xray_vqa.evaluation.results import EvaluationResults

logger = logging.getLogger(__name__)


def report_run(
    path: Path,
    output: Path,
    results: EvaluationResults,
    predictions: Sequence[ScanPrediction],
    header: PredictionsHeader,
    predicted: Manifest,
    policy: Policy,
    *,
    root: Path,
    model: str,
    device: str | None = None,
    heat_maps: bool = False,
) -> list[Path]:
    """Write the page, its tables as Markdown beside it, and both with the results into the model's folder.

    Args:
        path: Of the page; the Markdown has its name with `.md`.
        output: The results, `evaluation.json`, with their manifest beside them.
        results: What stands in it.
        predictions: Of the model.
        header: Of the predictions file.
        predicted: Its manifest.
        policy: That the inspections shown are made by.
        root: Of the dataset.
        model: As the command named it.
        device: That heat maps are made on.
        heat_maps: Whether the model runs again to show where it looked; under a second a scan for nano.

    Returns:
        What was written.
    """
    scored = read_manifest(output)
    scans = choose_scans(root, predictions, header, policy)
    about = about_run(predictions, header, [("Predictions", predicted), ("Scores", scored)])
    maps = heat_maps_of(model, device, scans) if heat_maps else {}
    write_report(path, results, scans, about=about, heat_maps=maps)
    tables = write_markdown(path.with_suffix(".md"), results, about=about)
    logger.info("report in %s, its tables in %s", path, tables)
    files = {"evaluation.json": output, "report.html": path, "report.md": tables}
    folder = write_evidence(model, results, files, scored)
    if folder:
        logger.info("evidence for these weights in %s", folder)
    return [path, tables, *([folder] if folder else [])]
