"""xray-vqa: fine-tune a vision-language model on X-ray baggage scans and serve it to a checkpoint, fail-safe.

Importing the package costs nothing heavy: the names below need no torch, no web framework and no LLM client.
"""

from xray_vqa.core.geometry import REGIONS, Box
from xray_vqa.core.inspection import Action, Decision, Finding, Inspection, RiskLevel, Scan, Score
from xray_vqa.core.manifest import package_version
from xray_vqa.core.policy import Policy, decide
from xray_vqa.core.records import Annotation, ScanRecord, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, canonical_category
from xray_vqa.errors import XrayVqaError

__version__ = package_version()

__all__ = [
    "CATEGORIES",
    "REGIONS",
    "UNLISTED",
    "Action",
    "Annotation",
    "Box",
    "Decision",
    "Finding",
    "Inspection",
    "Policy",
    "RiskLevel",
    "Scan",
    "ScanRecord",
    "Score",
    "VQAPair",
    "XrayVqaError",
    "canonical_category",
    "decide",
]
