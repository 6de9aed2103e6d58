"""Says in words what another policy changes, and for whom."""

from collections.abc import Iterator
from typing import Literal

from xray_vqa.core.inspection import RiskLevel
from xray_vqa.core.lexicon import load_lexicon
from xray_vqa.core.policy.rules import Policy
from xray_vqa.core.records import Strict
from xray_vqa.core.taxonomy import CATEGORIES

Direction = Literal["stricter", "looser", "other"]


class Change(Strict):
    """One difference."""

    direction: Direction
    whom: str
    """Whose bag it concerns."""
    what: str


def compare_policies(old: Policy, new: Policy) -> list[Change]:
    """Return what changes for whom when one policy takes the place of another; empty where nothing does."""
    return [
        *_looked_for(old, new),
        *_by_category(old, new),
        *_by_good(old, new),
        *_actions(old, new),
        *_declarations(old, new),
        *_clearing(old, new),
        *_names(old, new),
    ]


def _change(is_stricter: bool, whom: str, what: str) -> Change:
    return Change(direction="stricter" if is_stricter else "looser", whom=whom, what=what)


def _called(category: str) -> str:
    return load_lexicon("en").categories[category].a


def _looked_for(old: Policy, new: Policy) -> Iterator[Change]:
    for name in CATEGORIES:
        before, after = name in old.required_categories, name in new.required_categories
        if before != after:
            what = "is looked for before a bag is cleared" if after else "is no longer looked for: it can be cleared"
            yield _change(after, f"a bag with {_called(name)}", what)


def _by_category(old: Policy, new: Policy) -> Iterator[Change]:
    for name in CATEGORIES:
        before, after, it = old.rule(name), new.rule(name), _called(name)
        if before.declarable != after.declarable:
            what = "it may be declared" if after.declarable else "declaring it is prohibited"
            yield _change(before.declarable, f"who declares {it}", what)
        if name not in new.required_categories:
            continue
        bag = f"a bag with {it}"
        if before.risk_level is not after.risk_level:
            action, new_action = old.action_for[before.risk_level].value, new.action_for[after.risk_level].value
            what = f"risk {after.risk_level.value} instead of {before.risk_level.value}, {new_action} "
            what += "as before" if action == new_action else f"instead of {action}"
            yield _change(after.risk_level > before.risk_level, bag, what)
        yield from _threshold(bag, "reported from", before.threshold, after.threshold)
        yield from _threshold(bag, "cleared only below", before.clear_below, after.clear_below)
        risk, new_risk = old.unsure_risk_of(name), new.unsure_risk_of(name)
        if risk is not new_risk:
            whom = f"a bag of which nobody knows whether it holds {it}"
            yield _change(new_risk > risk, whom, f"risk {new_risk.value} instead of {risk.value}")


def _threshold(whom: str, what: str, before: float | None, after: float | None) -> Iterator[Change]:
    if before == after:
        return
    told = ["as calibrated" if value is None else f"probability {value:g}" for value in (after, before)]
    what = f"{what} {told[0]} instead of {told[1]}"
    if before is None or after is None:  # what the calibration says is not known here
        yield Change(direction="other", whom=whom, what=what)
    else:
        yield _change(after < before, whom, what)


def _by_good(old: Policy, new: Policy) -> Iterator[Change]:
    for good in sorted({*old.prohibited_goods, *new.prohibited_goods}):
        before, after = (
            policy.risk_of_declaring(good) if good in policy.prohibited_goods else None for policy in (old, new)
        )
        if before is not after:
            what = "it is allowed" if after is None else f"it is prohibited at risk {after.value}"
            what += "" if before is None else f", was prohibited at risk {before.value}"
            yield _change(after is not None and (before is None or after > before), f"who declares {good}", what)


def _actions(old: Policy, new: Policy) -> Iterator[Change]:
    for level in RiskLevel:
        before, after = old.action_for[level].value, new.action_for[level].value
        if before != after:
            what = f"{after} instead of {before}"
            yield _change(after == "detain", f"a bag of risk {level.value} that is not cleared", what)


def _declarations(old: Policy, new: Policy) -> Iterator[Change]:
    for key, whom in (
        ("undeclared_risk", "a bag with something found outside its declaration"),
        ("declared_prohibited_risk", "who declares something prohibited"),
        ("declaration_risk", "whose declaration is not accepted"),
        ("unsure_risk", "a bag that a model without a fitting calibration has looked at, or while the switch is on"),
    ):
        before, after = getattr(old, key), getattr(new, key)
        if before is not after:
            yield _change(after > before, whom, f"risk of at least {after.value} instead of {before.value}")
    for key, whom in (
        ("absent_declaration", "who makes no declaration"),
        ("empty_declaration", "who declares that there is nothing to declare"),
        ("missing_declared", "who declares something that the model looks for and does not see"),
        ("unknown_declared", "who declares something in words that nobody knows"),
    ):
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            yield _change(after != "accept", whom, "goes to a person" if after != "accept" else "can be cleared")
    if old.unnumbered_quantity != new.unnumbered_quantity:
        told = "any number" if new.unnumbered_quantity is None else f"{new.unnumbered_quantity}"
        is_stricter = new.unnumbered_quantity is not None and (
            old.unnumbered_quantity is None or new.unnumbered_quantity < old.unnumbered_quantity
        )
        yield _change(is_stricter, "who declares something without a number", f"it stands for {told}")


def _clearing(old: Policy, new: Policy) -> Iterator[Change]:
    everyone = "every bag"
    if old.clear_share != new.clear_share:
        what = f"cleared only below {new.clear_share:g} of each threshold, was {old.clear_share:g}"
        yield _change(new.clear_share < old.clear_share, everyone, what)
    if old.default_threshold != new.default_threshold:
        what = f"default threshold {new.default_threshold:g} instead of {old.default_threshold:g}"
        yield _change(new.default_threshold < old.default_threshold, everyone, what)
    if old.clear_on_simulated_calibration != new.clear_on_simulated_calibration:
        may = "can" if new.clear_on_simulated_calibration else "can no longer"
        what = f"{may} be cleared by thresholds from simulated scans"
        yield _change(old.clear_on_simulated_calibration, everyone, what)
    for key in type(new.input).model_fields:
        before, after = getattr(old.input, key), getattr(new.input, key)
        if before != after:
            is_stricter = after > before if key.startswith("min_") else after < before
            yield _change(is_stricter, everyone, f"taken for a scan only by {key} {after:g} instead of {before:g}")


def _names(old: Policy, new: Policy) -> Iterator[Change]:
    if old.lane != new.lane:
        yield Change(direction="other", whom="the stop switch", what=f"throws it as lane {new.lane}, was {old.lane}")
    for name in CATEGORIES:
        before, after = old.rule(name).noun, new.rule(name).noun
        if before != after:
            what = f"{_called(name)} is called {after}, was {before}"
            yield Change(direction="other", whom="the officer's sentence", what=what)
    for key in ("name", "version", "jurisdiction"):
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            yield Change(direction="other", whom="the record", what=f"{key} {after!r}, was {before!r}")
