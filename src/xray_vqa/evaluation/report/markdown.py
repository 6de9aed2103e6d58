"""The page's tables as Markdown, for a merge request, an e-mail or a diff of two runs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from xray_vqa.core.jsonl import replacing
from xray_vqa.evaluation.report.about import About
from xray_vqa.evaluation.report.bars import category_rows
from xray_vqa.evaluation.report.words import headline, limits_of
from xray_vqa.evaluation.results import EvaluationResults, TextScores
from xray_vqa.evaluation.table import COLUMNS, cells_of, format_estimate, told_scans

ORIGINS = {
    "simulated": "**SIMULATED SCANS: a computer made all of them.**",
    "mixed": "**PARTLY SIMULATED SCANS.**",
    "real": "Scans of real bags, or so their records say.",
    "unknown": "Where the scans come from is not recorded.",
}


def write_markdown(
    path: Path, results: EvaluationResults, title: str = "X-ray VQA evaluation", *, about: About | None = None
) -> Path:
    """Write the tables, whole or not at all, and return the path."""
    parts = [*_head(results, title, about or About()), *_screening(results), *_rest(results), *_made(results, about)]
    with replacing(path) as stream:
        stream.write(("\n".join(parts) + "\n").encode("utf-8", "replace"))
    return path


def _head(results: EvaluationResults, title: str, about: About) -> list[str]:
    scored = results.scored
    return [
        f"# {_plain(title)}",
        "",
        ORIGINS[about.origin],
        "",
        *(f"- The model {told.sentence} ({told.basis})." for told in headline(results) if told.count is not None),
        *(f"- {told.sentence}" for told in headline(results) if told.count is None),
        *(f"- {_plain(sentence)}" for sentence in limits_of(results)),
        *(f"- {_plain(note)}" for note in results.notes),
        "",
        "This is a measurement, not a certification.",
        "",
        f"{_plain(scored.model_name)}, {scored.num_questions} questions on "
        f"{told_scans(scored.num_scans, scored.num_groups)}, {scored.split} split.",
        "",
        *_table(
            ["", *(name for name, _ in COLUMNS), "what it is"],
            ([row.name, *map(format_estimate, cells_of(row)), row.what] for row in results.rows),
        ),
    ]


def _screening(results: EvaluationResults) -> list[str]:
    bag = results.screening.bag
    points = [["thresholds in force", format_estimate(bag.pd), format_estimate(bag.pfa)]]
    points += [[f"Pfa at most {level}", format_estimate(pd), "-"] for level, pd in bag.pd_at_pfa.items()]
    points += [[f"Pd at least {level}", "-", format_estimate(pfa)] for level, pfa in bag.pfa_at_pd.items()]
    categories = (
        [
            row.name,
            str(row.scores.num_positive),
            *map(format_estimate, (row.scores.pd, row.scores.pfa, row.scores.auc_interval)),
            _number(row.scores.average_precision),
            f"{row.scores.threshold:.3f}",
        ]
        for row in category_rows(results.screening.categories)
    )
    prevalence = (
        [
            f"{100 * at.prevalence:g} %",
            f"{at.alarms_per_1000:.0f}",
            _number(at.ppv),
            f"{at.threats_missed_per_million:,.0f}",
        ]
        for at in bag.at_prevalence
    )
    slices = (
        [factor, part.value, format_estimate(part.pd), str(part.pd.n), format_estimate(part.pfa), str(part.pfa.n)]
        for factor, parts in results.slices.items()
        for part in parts
    )
    return [
        "## Bags",
        "",
        f"AUC {format_estimate(bag.auc)}, {bag.num_threat} threat bags, {bag.num_clean} clean ones.",
        "",
        *_table(["point", "Pd", "Pfa"], points),
        *_table(["threats among bags", "stopped of 1,000", "PPV", "missed of a million bags"], prevalence),
        "## Categories, worst first",
        "",
        *_table(["category", "n", "Pd", "Pfa", "AUC", "AP", "threshold"], categories),
        "## Difficulty",
        "",
        *_table(["factor", "value", "Pd", "n", "Pfa", "n"], slices),
    ]


def _rest(results: EvaluationResults) -> list[str]:
    places, calibration = results.localisation, results.calibration
    errors = ("error_equal_width", "error_equal_mass", "brier", "area_under_risk_coverage")
    told = [
        "## Calibration and places",
        "",
        *_table(
            ["", "as given", "corrected"],
            (
                [
                    name.replace("_", " "),
                    _number(getattr(calibration.before, name)),
                    _number(getattr(calibration.after, name)),
                ]
                for name in errors
            ),
        ),
        *_table(
            ["", "value"],
            [
                *([f"Acc@IoU {iou}", format_estimate(value)] for iou, value in places.accuracy_at_iou.items()),
                ["mean IoU", format_estimate(places.mean_iou_estimate)],
                ["precision", _number(places.precision)],
            ],
        ),
        "## Answers",
        "",
        *_text("type", results.by_question_type),
        *_text("language", results.by_language),
    ]
    failed = results.unreadable
    told.append(
        f"Counted as wrong because nothing could be read: {failed.scans} scans, {failed.answers} answers, "
        f"{failed.scores} scores."
    )
    return [*told, "", *(f"- {_plain(name)}" for name in failed.named), *([""] if failed.named else [])]


def _text(first: str, entries: dict[str, TextScores]) -> list[str]:
    return _table(
        [first, "questions", "exact match", "same meaning", "ROUGE-L", "unreadable"],
        (
            [
                kind,
                str(scores.num_questions),
                *map(format_estimate, (scores.exact_match, scores.lenient_match, scores.rouge_l_all)),
                str(scores.num_unreadable),
            ]
            for kind, scores in entries.items()
        ),
    )


def _made(results: EvaluationResults, about: About | None) -> list[str]:
    identity = results.scored.identity
    told = ["## What made this", "", f"- weights `{identity.model_digest}`"]
    if identity.adapter_digest:
        told.append(f"- adapter `{identity.adapter_digest}`")
    told.append(
        f"- {identity.engine}, {identity.dtype}, processor {identity.processor_version}, prompt version "
        f"{identity.prompt_version}, normaliser {results.scored.normaliser}"
    )
    told += [f"- {_plain(path)} sha256 `{digest}`" for path, digest in results.scored.inputs.items()]
    for name, made in about.manifests if about else ():
        told.append(f"- {name}: `{' '.join(made.command)}`, {made.created}, xray-vqa {made.version}")
    return told


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [list(row) for row in rows]
    if not lines:
        return ["Nothing to show.", ""]
    told = ["| " + " | ".join(map(_plain, row)) + " |" for row in [list(head), *lines]]
    return [told[0], "|" + " --- |" * len(head), *told[1:], ""]


def _plain(text: str) -> str:
    """Return text from outside as text: no cell ends early, and no markup or line of its own comes of it."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for mark in "|[]`*_#":
        escaped = escaped.replace(mark, "\\" + mark)
    return " ".join(escaped.split())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
