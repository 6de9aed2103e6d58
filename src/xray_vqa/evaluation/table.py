"""The comparison of rows as a small table for people."""

from collections.abc import Sequence

from xray_vqa.evaluation.results import Estimate, EvaluationResults, Row

COLUMNS = (
    ("exact match", "exact_match"),
    ("item F1", "item_f1"),
    ("BLEU", "bleu"),
    ("ROUGE-L", "rouge_l"),
    ("bag AUC", "bag_auc"),
    ("Pd at 5 % Pfa", "pd_at_pfa_5"),
    ("Acc@IoU 0.5", "localisation"),
)


def format_estimate(estimate: Estimate) -> str:
    """Return "0.72 [0.68, 0.75]", without the interval where there is none, or a dash."""
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def told_scans(num_scans: int, num_groups: int) -> str:
    """Return "150 scans of as many bags", or where several are alike "230 scans in 13 groups"."""
    return f"{num_scans} scans " + (f"in {num_groups} groups" if num_groups < num_scans else "of as many bags")


def cells_of(row: Row) -> list[Estimate]:
    """Return a row's estimates in the order of `COLUMNS`."""
    return [getattr(row, field) for _, field in COLUMNS]


def format_table(results: EvaluationResults) -> str:
    """Return the rows with 95 % intervals, the size of each column's sample, and what a reader has to know."""
    lines = [["", *(title for title, _ in COLUMNS)]]
    lines += [[row.name, *(format_estimate(cell) for cell in cells_of(row))] for row in results.rows]
    lines.append(["n (model)", *(str(cell.n) for cell in cells_of(results.rows[0]))])
    bag, scored = results.screening.bag, results.scored
    told = [
        f"{scored.num_questions} questions on {told_scans(scored.num_scans, scored.num_groups)} "
        f"({scored.split} split), {bag.num_threat} with a threat and {bag.num_clean} clean",
        f"at the thresholds: Pd {format_estimate(bag.pd)}, Pfa {format_estimate(bag.pfa)}",
    ]
    if results.screening.worst_pd:
        told.append(f"worst category: {results.screening.worst_pd.category}, Pd {results.screening.worst_pd.value:.3f}")
    measured = {name: row for name, row in results.screening.categories.items() if row.auc is not None}
    if measured:
        told.append("AUC of scans with an item against all others, intervals by group:")
        told += [
            f"  {name}: {format_estimate(row.auc_interval)} ({row.num_positive} against {row.num_negative})"
            for name, row in measured.items()
        ]
    failed = results.unreadable
    if failed.scans or failed.answers or failed.scores:
        told.append(
            f"counted as wrong: {failed.scans} scans, {failed.answers} answers and {failed.scores} scores "
            "that could not be read"
        )
    told += [f"note: {note}" for note in results.notes]
    return "\n".join([*_aligned(lines), "", *told])


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [rows[0], "-" * max(map(len, rows)), *rows[1:]]
