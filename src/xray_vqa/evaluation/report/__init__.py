"""One self-contained page with what was measured: numbers with intervals, curves, and scans with boxes and answers."""

from xray_vqa.evaluation.report.page import ReportScan, choose_scans, write_report

__all__ = ["ReportScan", "choose_scans", "write_report"]
