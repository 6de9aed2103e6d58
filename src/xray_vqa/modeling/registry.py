"""What differs from one model family to the next, in one place.

`docs/MODELS.md` shows it as a table; `tests/unit/modeling/test_conformance.py` holds each family to it on tiny random
models.
"""

import re
from dataclasses import dataclass
from typing import Literal

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from xray_vqa.errors import ModelUnavailable

BoxFrame = Literal["pixels", "thousandths"]
"""What a box's numbers count: pixels of the resized image, or thousandths of its width and height."""

_USUAL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Of Gated DeltaNet layers the wide ones; in_proj_a and in_proj_b are as narrow as an adapter.
_DELTA_NET = ("in_proj_qkv", "in_proj_z", "out_proj")
_VISION = ("qkv", "proj", "linear_fc1", "linear_fc2")
_GATED_VISION = ("qkv", "proj", "gate_proj", "up_proj", "down_proj")
_NO_THINKING = "<think>\n\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A family of models that the prompt tree, the adapters and the export know how to treat."""

    model_type: str
    """As in the checkpoint's config.json."""
    title: str
    box_frame: BoxFrame
    """In which the family has learnt to name places."""
    language_model: str = "model.language_model"
    """Module path of the decoder."""
    vision_tower: str = "model.visual"
    merger: str = "model.visual.merger"
    """What makes visual tokens of patches. DeepStack's further mergers count as parts of the vision tower."""
    projections: tuple[str, ...] = _USUAL
    """Last parts of the names of the decoder's linear layers that an adapter is worth putting around."""
    vision_projections: tuple[str, ...] = _VISION
    """The same in the blocks of the vision tower."""
    answer_opening: str = ""
    """What the family's chat template writes before an answer that is given without thinking aloud."""
    unquantized: tuple[str, ...] = ()
    """Last parts of the names of the decoder's linear layers that keep their precision where others are quantised."""
    licences: tuple[tuple[int, str], ...] = ()
    """Width of the decoder of sizes that are not free for any use, and what holds for them."""
    is_recurrent: bool = False
    """Whether some layers carry a state from token to token. A mask cannot keep it from going from branch to branch."""
    is_known: bool = True
    """Whether the conformance suite covers the family. Others run in the safe mode."""

    @property
    def trains_packed(self) -> bool:
        """Whether the trees of a batch are trained in one sequence; else every branch has a padded row of its own."""
        return self.is_known

    @property
    def serves_tree(self) -> bool:
        """Whether all branches are read in one pass; else each from a copy of what is remembered of the prefix."""
        return self.is_known and not self.is_recurrent

    @property
    def is_compiled(self) -> bool:
        """Whether long runs compile the layers unasked."""
        return self.is_known and not self.is_recurrent

    def lora_targets(self, projections: list[str] | None = None, *, vision: bool = False) -> str:
        """Return the pattern of module names that get an adapter.

        It does not ask for what stands before the decoder's own name, so that the same saved adapter fits the model
        that `AutoModel` makes, whose modules have no `model.` in front, as well as the one with an output layer.

        Args:
            projections: Last parts of the names; by default the family's own.
            vision: Whether the vision tower's linear layers are adapted too.
        """
        module = re.escape(self.language_model.rpartition(".")[2])
        decoder = rf".*{module}\..*\.{_any_of(projections or self.projections)}"
        if not vision:
            return decoder
        # The patch embedding too: another scanner's colours are undone best where they come in.
        visual = re.escape(self.vision_tower.rpartition(".")[2])
        tower = rf".*{visual}\.(patch_embed\.proj|blocks\..*\.{_any_of(self.vision_projections)})"
        return rf"({decoder}|{tower})"

    def licence_note(self, width: int) -> str | None:
        """Return what limits the use of the weights of a size, or None. `width` is the decoder's hidden size."""
        return dict(self.licences).get(width)

    @property
    def limits(self) -> tuple[str, ...]:
        """What is off for this family, in words for a user; empty where nothing is."""
        limits: list[str] = []
        if not self.trains_packed:
            limits.append(
                "packed training: every branch has a padded row of its own with its image in it; the same results, "
                "several times slower, so think of gradient_checkpointing"
            )
        if not self.serves_tree:
            limits.append(
                "reading all branches in one pass: they go on from copies of what is remembered of the image; the same "
                "results, slower"
            )
        if not self.is_compiled:
            limits.append("compiling the layers in long runs, unless `compile: true` asks for it")
        if not self.is_known:
            limits.append("our vision attention and patch product: transformers' own are used")
            limits.append("the conformance suite: nobody has tried this family here")
            limits.append("knowledge of how it names places: boxes are told in thousandths of width and height")
        return tuple(limits)


def _any_of(names: tuple[str, ...] | list[str]) -> str:
    return "(" + "|".join(map(re.escape, names)) + ")"


QWEN2_5_VL = ModelSpec(
    "qwen2_5_vl",
    "Qwen2.5-VL",
    box_frame="pixels",
    vision_projections=_GATED_VISION,
    licences=(
        (2048, "the 3B is under the Qwen research licence: no commercial use"),
        (8192, "the 72B is under the Qwen licence: over 100 million users a month need a licence of their own"),
    ),
)
QWEN3_VL = ModelSpec("qwen3_vl", "Qwen3-VL", box_frame="thousandths")
QWEN3_5 = ModelSpec(
    "qwen3_5",
    "Qwen3.5",
    box_frame="thousandths",
    projections=(*_USUAL, *_DELTA_NET),
    answer_opening=_NO_THINKING,
    unquantized=("in_proj_a", "in_proj_b"),
    is_recurrent=True,
)

SPECS = {spec.model_type: spec for spec in (QWEN2_5_VL, QWEN3_VL, QWEN3_5)}


def spec_of(model_type: str) -> ModelSpec:
    """Return the spec of a family; for one that is not known but reads images, that of the safe mode.

    Raises:
        ModelUnavailable: transformers knows no model of this type that answers with text about images.
    """
    if model_type in SPECS:
        return SPECS[model_type]
    if model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ModelUnavailable(
            f"model family {model_type!r} is not supported: this transformers has no model of it that reads images; "
            f"known: {', '.join(sorted(SPECS))}"
        )
    return ModelSpec(
        model_type,
        model_type,
        box_frame="thousandths",
        projections=(*_USUAL, *_DELTA_NET),
        vision_projections=tuple(dict.fromkeys(_VISION + _GATED_VISION)),
        is_known=False,
    )
