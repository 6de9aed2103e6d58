"""The sentence that an officer reads beside a decision, made from the evidence and never by the model.

In any of the lexicons' six languages. What was declared is quoted as it was written.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

from xray_vqa.core.inspection import Action, Decision, DeclaredItem, Evidence, Finding
from xray_vqa.core.lexicon import load_lexicon
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import Strict

_COUNT_WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")


class Sentences(Strict):
    """The sentences of one language; names in braces are filled in."""

    degraded: dict[str, str]
    """By engine fault."""
    not_assessed: str
    findings: str
    no_place: str
    nothing: str
    declared_prohibited: str
    mismatch: str
    match: str
    unverified: str
    unclear: str
    over_count: str
    counted: str
    """One line of `over_count`."""
    missing: str
    unknown: str
    between: str
    """Categories between their two thresholds."""
    not_clear: dict[str, str]
    """By condition of `clear` that does not hold, in the order in which they are told."""
    cleared: str


@cache
def load_sentences() -> dict[str, Sentences]:
    """Return the sentences of each language."""
    path = Path(__file__).with_suffix(".yaml")
    languages = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {language: Sentences.model_validate(sentences) for language, sentences in languages.items()}


def write_reasoning(policy: Policy, evidence: Evidence, decision: Decision, language: str = "en") -> str:
    """Return one to a few sentences: what was found and where, what the declaration says, why a person is asked.

    Raises KeyError for a language that is none of `core.lexicon.LANGUAGES`.
    """
    say = load_sentences()[language]
    sentences: list[str] = []
    if evidence.engine_faults:
        causes = ", ".join(say.degraded.get(fault, fault) for fault in evidence.engine_faults)
        sentences.append(say.not_assessed.format(causes=causes))
    if evidence.findings:
        sentences.append(
            _findings_in_english(policy, evidence.findings)
            if language == "en"
            else _findings_by_lexicon(evidence.findings, language)
        )
    elif not evidence.engine_faults:
        sentences.append(say.nothing)
    sentences.extend(_describe_declaration(evidence, decision, say))
    if between := _about(decision, "between_thresholds"):
        sentences.append(say.between.format(items=_joined(_called(between, language), language)))
    sentences.extend(text for reason, text in say.not_clear.items() if reason in decision.reasons)
    if decision.action is Action.CLEAR:
        sentences.append(say.cleared)
    return ("" if language == "zh" else " ").join(sentences)


def _about(decision: Decision, rule: str) -> tuple[str, ...]:
    return next((applied.about for applied in decision.rules if applied.rule == rule), ())


def _called(categories: Iterable[str], language: str) -> list[str]:
    if language == "en":
        return [category.lower() for category in categories]
    return [load_lexicon(language).categories[category].one for category in categories]


def _joined(items: Iterable[str], language: str) -> str:
    return load_lexicon(language).joins[0].join(items)


def _findings_in_english(policy: Policy, findings: tuple[Finding, ...]) -> str:
    say = load_sentences()["en"]
    nouns = Counter(policy.rule(finding.category).noun for finding in findings)
    noun = next(iter(nouns)) if len(nouns) == 1 else "item"
    count = _COUNT_WORDS[len(findings)] if len(findings) < len(_COUNT_WORDS) else str(len(findings))
    places = ", ".join(f"{finding.category.lower()} ({finding.region or say.no_place})" for finding in findings)
    return say.findings.format(count=count, noun=f"{noun}{'s' if len(findings) != 1 else ''}", items=places)


def _findings_by_lexicon(findings: tuple[Finding, ...], language: str) -> str:
    say, lexicon = load_sentences()[language], load_lexicon(language)
    opening, closing = ("（", "）") if language == "zh" else (" (", ")")
    items = _joined(
        (
            f"{lexicon.categories[finding.category].one}{opening}"
            f"{lexicon.regions[finding.region].name if finding.region else say.no_place}{closing}"
            for finding in findings
        ),
        language,
    )
    return say.findings.format(count=len(findings), items=items)


def _describe_declaration(evidence: Evidence, decision: Decision, say: Sentences) -> list[str]:
    """What is wrong with the declaration first, each under the rule that says so."""
    if not evidence.declared_items:
        return []

    def lines(*statuses: str) -> list[DeclaredItem]:
        return [line for line in decision.declaration if line.status in statuses]

    def listed(items: Iterable[str]) -> str:
        return ", ".join(items)

    sentences: list[str] = []
    if prohibited := lines("prohibited"):
        sentences.append(say.declared_prohibited.format(items=listed(line.item for line in prohibited)))
    if unclear := lines("unclear"):
        sentences.append(say.unclear.format(items=listed(line.item for line in unclear)))
    if evidence.findings:
        outside = _about(decision, "undeclared") or _about(decision, "over_count")
        told = say.mismatch if outside else say.match
        sentences.append(told.format(declared=listed(evidence.declared_items)))
    if over_count := lines("over_count"):
        counted = (say.counted.format(item=line.item, num_found=line.num_found) for line in over_count)
        sentences.append(say.over_count.format(items=listed(counted)))
    if missing := lines("missing"):
        sentences.append(say.missing.format(items=listed(line.item for line in missing)))
    if unknown := _about(decision, "declared_unknown"):
        sentences.append(say.unknown.format(items=listed(unknown)))
    unverified = [line.item for line in lines("not_verified", "unknown") if line.item not in unknown]
    if unverified and not evidence.findings and not evidence.engine_faults:
        sentences.append(say.unverified.format(declared=listed(unverified)))
    return sentences
