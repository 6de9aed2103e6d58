"""The sentence that an officer reads beside a decision, made from the evidence and never by the model."""

from collections import Counter

from xray_vqa.core.inspection import Action, Decision, Evidence, Finding
from xray_vqa.core.policy import Policy

_COUNT_WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")

_WHY_NOT_CLEAR = {
    "input_is_a_scan": "The image does not look like a scan of a bag.",
    "every_required_category_scored": "Not every required category could be scored.",
    "every_required_category_covered": "The model was not trained on every required category.",
    "calibration_matches": "The model has no calibration on real scans that fits it, so its scores cannot clear a bag.",
    "declaration_accepted": "The declaration is missing or empty, which this lane does not accept.",
}

_WHY_DEGRADED = {
    "timeout": "the model did not answer in time",
    "unavailable": "the model is not available",
    "unreadable": "the model's answer could not be read",
    "overloaded": "too many scans are waiting",
    "engine_error": "the model failed",
    "image_unreadable": "the image could not be read",
}


def write_reasoning(policy: Policy, evidence: Evidence, decision: Decision) -> str:
    """Return one to a few sentences: what was found and where, what the declaration says, why a person is asked."""
    sentences: list[str] = []
    if evidence.engine_faults:
        causes = ", ".join(_WHY_DEGRADED.get(fault, fault) for fault in evidence.engine_faults)
        sentences.append(f"The scan was not fully assessed: {causes}. Inspect by hand.")
    if evidence.findings:
        sentences.append(_describe_findings(policy, evidence.findings))
    elif not evidence.engine_faults:
        sentences.append("No prohibited item detected.")
    sentences.extend(_describe_declaration(evidence, decision))
    sentences.extend(text for reason, text in _WHY_NOT_CLEAR.items() if reason in decision.reasons)
    if decision.action is Action.CLEAR:
        sentences.append("All conditions for clearing the bag hold.")
    return " ".join(sentences)


def _describe_findings(policy: Policy, findings: tuple[Finding, ...]) -> str:
    nouns = Counter(policy.rule(finding.category).noun for finding in findings)
    noun = next(iter(nouns)) if len(nouns) == 1 else "item"
    count = _COUNT_WORDS[len(findings)] if len(findings) < len(_COUNT_WORDS) else str(len(findings))
    places = ", ".join(
        f"{finding.category.lower()} ({finding.region or 'place not determined'})" for finding in findings
    )
    return f"{count} prohibited {noun}{'s' if len(findings) != 1 else ''} detected: {places}."


def _describe_declaration(evidence: Evidence, decision: Decision) -> list[str]:
    if not evidence.declared_items:
        return []
    sentences: list[str] = []
    listed = ", ".join(evidence.declared_items)
    prohibited = [line.item for line in decision.declaration if line.status == "prohibited"]
    if prohibited:
        sentences.append(f"Declared items that may not be carried: {', '.join(prohibited)}.")
    if evidence.findings and not decision.match_declaration:
        sentences.append(f"Items declared ({listed}) do not match detected items.")
    elif evidence.findings:
        sentences.append(f"All detected items were declared ({listed}).")
    elif not prohibited and not evidence.engine_faults:
        sentences.append(f"Items declared ({listed}) were not verified by the model.")
    return sentences
