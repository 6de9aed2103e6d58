"""What a policy file may say, and what in it is refused."""

import hashlib
from typing import Literal

from pydantic import Field, model_validator

from xray_vqa.core.images import KnownLooks
from xray_vqa.core.inspection import Action, RiskLevel
from xray_vqa.core.policy.ontology import goods
from xray_vqa.core.records import Strict
from xray_vqa.core.taxonomy import CATEGORIES

DeclarationRule = Literal["accept", "manual_inspection"]
Lane = Literal["any", "cabin", "hold", "customs"]


class CategoryRule(Strict):
    """What one category means at this checkpoint."""

    risk_level: RiskLevel
    declarable: bool = False
    """Whether it may be carried when declared. It is reported all the same, at the same risk."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Probability from which it is reported. Unset: the model's calibration file decides."""
    clear_below: float | None = Field(default=None, gt=0, lt=1)
    """A bag is cleared only below this probability; between here and the threshold a person looks. Unset:
    `clear_share` of the threshold."""
    unsure_risk: RiskLevel | None = None
    """Where its score cannot be used or lies between the two thresholds. Unset: the policy's own `unsure_risk`."""
    noun: str = "item"
    """What the sentence calls it: "prohibited sharp item", "prohibited firearm"."""


class Policy(Strict):
    """A versioned set of rules for one lane; `configs/policy.yaml` is the one that is used by default."""

    name: str
    version: str
    jurisdiction: str = ""
    """Whose rules these are, for people."""
    lane: Lane = "any"
    """The stop switch can be thrown for one lane; a policy for `any` stops with each of them."""
    categories: dict[str, CategoryRule]
    required_categories: list[str]
    """Each needs a usable score before a bag can be cleared."""
    prohibited_goods: dict[str, RiskLevel] = {}
    """Goods that no model looks for and that may not be carried, by the ontology's name, and the risk of declaring
    them."""
    default_threshold: float = Field(default=0.5, gt=0, lt=1)
    """For a category that neither this file nor a calibration file gives one."""
    clear_share: float = Field(default=1.0, gt=0, le=1)
    """Share of its threshold below which a category's score may clear, where it has no `clear_below`."""
    action_for: dict[RiskLevel, Action]
    """For bags that are not cleared; `clear` cannot stand here."""
    unsure_risk: RiskLevel = RiskLevel.MEDIUM
    """For a required category without a usable score, or with one between its thresholds."""
    undeclared_risk: RiskLevel = RiskLevel.MEDIUM
    """At least this for a finding outside the declaration, the ones beyond a declared number included."""
    declared_prohibited_risk: RiskLevel = RiskLevel.HIGH
    """At least this when something was declared that may not be carried at all."""
    declaration_risk: RiskLevel = RiskLevel.MEDIUM
    """For a declaration that this lane does not accept: absent, empty, not understood, or not found in the bag."""
    absent_declaration: DeclarationRule = "accept"
    """When no declaration was made, as on a cabin lane."""
    empty_declaration: DeclarationRule = "accept"
    """When the traveller declared that there is nothing to declare."""
    missing_declared: DeclarationRule = "accept"
    """When something was declared that the model looks for and does not see."""
    unknown_declared: DeclarationRule = "accept"
    """When something was declared by words that the ontology does not know."""
    unnumbered_quantity: int | None = Field(default=None, ge=1)
    """How many a declared line without a number stands for. Unset: any number."""
    input: KnownLooks = KnownLooks()
    """What an image has to look like to be taken for a scan."""
    clear_on_simulated_calibration: bool = False
    """Whether a bag may be cleared by thresholds from simulated scans. For trials on simulated scans alone."""

    @model_validator(mode="after")
    def _check(self) -> "Policy":
        unknown = sorted((set(self.categories) | set(self.required_categories)) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"unknown categories {unknown}; the taxonomy has {', '.join(CATEGORIES)}")
        if not self.required_categories:
            raise ValueError("required_categories is empty; a bag could be cleared without looking for anything")
        without_rule = sorted(set(self.required_categories) - set(self.categories))
        if without_rule:
            raise ValueError(f"required categories without a rule under `categories`: {without_rule}")
        if unknown := sorted(set(self.prohibited_goods) - goods()):
            raise ValueError(f"unknown prohibited_goods {unknown}; the ontology has {', '.join(sorted(goods()))}")
        without_action = [level.value for level in RiskLevel if level not in self.action_for]
        if without_action:
            raise ValueError(f"action_for has no action for {without_action}")
        cleared = [level.value for level, action in self.action_for.items() if action is Action.CLEAR]
        if cleared:
            raise ValueError(f"action_for may not hold `clear` (found for {cleared}); clear is earned by conditions")
        for category, rule in self.categories.items():
            if rule.threshold is not None and rule.clear_below is not None and rule.clear_below > rule.threshold:
                raise ValueError(f"{category}: clear_below {rule.clear_below} lies above threshold {rule.threshold}")
        return self

    @property
    def label(self) -> str:
        """Name, version and the start of a digest of all rules: a file changed under its old version shows."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        return f"{self.name}@{self.version}+{digest[:8]}"

    def rule(self, category: str) -> CategoryRule:
        """Return the rule of a category; one without a rule of its own is of high risk."""
        return self.categories.get(category, CategoryRule(risk_level=RiskLevel.HIGH))

    def threshold(self, category: str, calibrated: dict[str, float]) -> float:
        """Return from which probability a category is reported: this file's word, else the calibration's."""
        own = self.rule(category).threshold
        return own if own is not None else calibrated.get(category, self.default_threshold)

    def clear_below(self, category: str, calibrated: dict[str, float]) -> float:
        """Return below which probability a category does not keep a bag from being cleared."""
        threshold, own = self.threshold(category, calibrated), self.rule(category).clear_below
        return threshold * self.clear_share if own is None else min(own, threshold)

    def unsure_risk_of(self, category: str) -> RiskLevel:
        """Return the risk of not knowing whether a category is there."""
        return self.rule(category).unsure_risk or self.unsure_risk

    def prohibits(self, concept: str) -> bool:
        """Whether a category or good may not be carried, declared or not."""
        return not self.rule(concept).declarable if concept in CATEGORIES else concept in self.prohibited_goods

    def risk_of_declaring(self, concept: str) -> RiskLevel:
        """Return the risk of declaring something that is prohibited."""
        return max(self.declared_prohibited_risk, self.prohibited_goods.get(concept, RiskLevel.LOW))
