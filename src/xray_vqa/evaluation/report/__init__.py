"""One self-contained page with what was measured: numbers with intervals, curves, and scans with boxes and answers."""

from xray_vqa.evaluation.report.about import About, about_run
from xray_vqa.evaluation.report.evidence import write_evidence
from xray_vqa.evaluation.report.gallery import ReportScan, choose_scans
from xray_vqa.evaluation.report.markdown import write_markdown
from xray_vqa.evaluation.report.page import write_report
from xray_vqa.evaluation.report.stage import report_run

__all__ = [
    "About",
    "ReportScan",
    "about_run",
    "choose_scans",
    "report_run",
    "write_evidence",
    "write_markdown",
    "write_report",
]
