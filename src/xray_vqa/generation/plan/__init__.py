"""Which questions are asked about which scan, and what the answers have to be.

The plan is a pure function of the records, the annotated categories, the policy and the seed. Scans are taken in the
order of a hash, and each one gets the questions that the set so far is short of. So the plan of the first hundred is
the beginning of the plan of all, however the annotation file is sorted.

Answers are kept in balance: for each category as many "no" as "yes" (presence), as many false premises as true ones
(absent); none as often as one, and neither less often than another number, of whatever is counted (count); clean bags
as often as others (general), declarations that are right as often as wrong ones, and the few answers of each topic
about equally often (concealment). These are limits: where the scans cannot keep them, another type of question is
asked.
"""

from xray_vqa.generation.facts import NONE
from xray_vqa.generation.plan.planner import PLAN_VERSION, SHARES, Planner, plan_images
from xray_vqa.generation.plan.slot import PlannedImage, Slot, count_slots, identity_of

__all__ = [
    "NONE",
    "PLAN_VERSION",
    "SHARES",
    "PlannedImage",
    "Planner",
    "Slot",
    "count_slots",
    "identity_of",
    "plan_images",
]
