"""What differs from one model family to the next, in one place."""

import re
from dataclasses import dataclass

from xray_vqa.errors import ModelUnavailable

_PROJECTIONS = r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A family of models that the prompt tree, the adapters and the export know how to treat."""

    model_type: str
    """As in the checkpoint's config.json."""
    language_model: str
    """Module path of the decoder."""
    vision_tower: str
    merger: str

    def lora_targets(self, projections: list[str] | None = None, *, vision: bool = False) -> str:
        """Return the pattern of module names that get an adapter.

        It does not ask for what stands before the decoder's own name, so that the same saved adapter fits the model
        that `AutoModel` makes, whose modules have no `model.` in front, as well as the one with an output layer.

        Args:
            projections: Last parts of the names; by default the seven of each decoder layer.
            vision: Whether the vision tower's linear layers are adapted too.
        """
        names = "(" + "|".join(map(re.escape, projections)) + ")" if projections else _PROJECTIONS
        decoder = rf".*{re.escape(self.language_model.rpartition('.')[2])}\..*\.{names}"
        if not vision:
            return decoder
        # The patch embedding too: another scanner's colours are undone best where they come in.
        visual = re.escape(self.vision_tower.rpartition(".")[2])
        tower = rf".*{visual}\.(patch_embed\.proj|blocks\..*\.(qkv|proj|gate_proj|up_proj|down_proj))"
        return rf"({decoder}|{tower})"


QWEN2_5_VL = ModelSpec("qwen2_5_vl", "model.language_model", "model.visual", "model.visual.merger")

_SPECS = {spec.model_type: spec for spec in (QWEN2_5_VL,)}


def spec_of(model_type: str) -> ModelSpec:
    """Return the spec of a family. Raises ModelUnavailable naming the families that are known."""
    if model_type not in _SPECS:
        raise ModelUnavailable(f"model family {model_type!r} is not supported; known: {', '.join(sorted(_SPECS))}")
    return _SPECS[model_type]
