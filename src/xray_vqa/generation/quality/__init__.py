"""How good a set of pairs is: what of it is true, how balanced and varied it is, and how far one gets without looking.

`meter` counts, `gates` judges, `page` and `card` tell. The thresholds are in `configs/pair_quality.yaml`.
"""

from xray_vqa.generation.quality.meter import QualityMeter, measure
from xray_vqa.generation.quality.report import Making, Quality, describe

__all__ = ["Making", "Quality", "QualityMeter", "describe", "measure"]
