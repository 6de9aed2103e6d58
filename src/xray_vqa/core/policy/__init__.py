"""The rules that turn what the model sees into a risk and an action. The model never decides.

`rules` is what a policy file may say, `ontology` reads what was declared, `decision` is the one place that makes
`clear`, `stop` is the switch that forbids it. `checking`, `comparing` and `replay` look at policies before they are
used. What an officer reads of a decision is written by `core.reasoning`.
"""

from xray_vqa.core.policy.decision import CLEAR_CONDITIONS, RISK_RULES, decide
from xray_vqa.core.policy.rules import CategoryRule, Policy

__all__ = ["CLEAR_CONDITIONS", "RISK_RULES", "CategoryRule", "Policy", "decide"]
