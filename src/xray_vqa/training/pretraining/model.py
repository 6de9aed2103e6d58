"""nano as pre-training runs it: a batch of prompt trees of one image size, and heads that name what a token sees."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import Qwen2_5_VLForConditionalGeneration

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.prompt_tree import (
    IGNORE_INDEX,
    PREFIX_SEGMENT,
    prefix_positions,
    tree_mask,
)
from xray_vqa.training.dense import DenseHeads, PatchHead
from xray_vqa.training.pretraining.stream import BOXES, KINDS, LABELS, OFFSETS, PROBE, QUESTION, SEGMENTS, TOKENS


@dataclass(slots=True)
class Batch:
    """A batch on the device; see `stream.ScanArrays` for the parts."""

    images: torch.Tensor
    owner: torch.Tensor
    patch_owner: torch.Tensor
    objects: torch.Tensor
    branches: torch.Tensor
    """(batch, 5, branch_tokens) int64"""


class AuxiliaryHeads(torch.nn.Module):
    """What the vision tower is asked beside the questions; dropped after the training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens = DenseHeads(width)
        self.patches = PatchHead(width)


class PretrainModel:
    """The model on batches of one image size: everything that depends on the size alone is made once."""

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        encoder: PromptEncoder,
        processor: Processor,
        size_wh: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.model, self.encoder, self.processor, self.device = model, encoder, processor, device
        self.grid_hw = processor.grid_hw(size_wh)
        num_image_tokens = self.grid_hw[0] * self.grid_hw[1]
        prefix, self.image_start = encoder.prefix(num_image_tokens)
        self.image_end = self.image_start + num_image_tokens
        self.prefix_ids = torch.tensor(prefix, device=device)
        self.prefix_positions = prefix_positions(len(prefix), self.image_start, self.grid_hw).to(device)
        self.branch_start = int(self.prefix_positions.max()) + 1
        self._vision_arguments: dict[int, dict[str, Any]] = {}

    def hidden_states(self, images: torch.Tensor, branches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the decoder's last states at the branch tokens, the visual tokens, and the patches before merging.

        Args:
            images: (batch, height, width, 3) uint8.
            branches: (batch, 5, branch_tokens) int64.

        Returns:
            (batch, branch_tokens, width), (batch, image tokens, width), and (batch, image tokens * 4, width) in the
            order of `as_patches`.
        """
        size, length = images.shape[0], self.prefix_ids.numel()
        patches = self.processor.patchify(images)
        arguments = self._vision_kwargs(size, images.device)
        seen = self.model.model.visual(patches, **arguments)
        num_tokens = self.image_end - self.image_start
        visual = seen.pooler_output.reshape(size, num_tokens, -1)
        # The blocks see the patches window by window, the four of a visual token side by side.
        windows = seen.last_hidden_state.reshape(size * num_tokens, -1)
        whole = windows[torch.argsort(arguments["window_index"])].reshape(size, num_tokens * 4, -1)
        ids = torch.cat([self.prefix_ids.expand(size, -1), branches[:, TOKENS]], dim=1)
        embeds = self.model.get_input_embeddings()(ids)
        embeds = torch.cat([embeds[:, : self.image_start], visual.to(embeds.dtype), embeds[:, self.image_end :]], dim=1)
        segments = F.pad(branches[:, SEGMENTS], (length, 0), value=PREFIX_SEGMENT)
        positions = torch.cat(
            [
                self.prefix_positions[:, None].expand(-1, size, -1),
                (self.branch_start + branches[:, OFFSETS]).expand(3, -1, -1),
            ],
            dim=2,
        )
        states = self.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=tree_mask(segments),
            use_cache=False,
        ).last_hidden_state
        return states[:, length:], visual, whole

    def as_patches(self, owner: torch.Tensor) -> torch.Tensor:
        """Return a map (batch, 2 rows, 2 columns) in the order of the patches, (batch, rows * columns * 4)."""
        rows, columns = self.grid_hw
        return owner.reshape(-1, rows, 2, columns, 2).transpose(2, 3).flatten(1)

    def _vision_kwargs(self, size: int, device: torch.device) -> dict[str, Any]:
        """Window order and segment bounds of `size` equal images, which transformers works out in Python each call."""
        if size not in self._vision_arguments:
            from transformers.vision_utils import (
                get_vision_cu_seqlens,
                get_vision_position_ids,
                get_vision_window_index,
            )

            rows, columns = self.grid_hw[0] * self.processor.merge_size, self.grid_hw[1] * self.processor.merge_size
            grid = torch.tensor([[1, rows, columns]] * size, device=device)
            visual: Any = self.model.model.visual
            index, window_bounds = get_vision_window_index(
                grid,
                spatial_merge_size=visual.spatial_merge_size,
                window_size=visual.window_size,
                patch_size=visual.patch_size,
            )
            bounds = get_vision_cu_seqlens(grid)
            self._vision_arguments[size] = {
                "grid_thw": grid,
                "position_ids": get_vision_position_ids(grid, visual.spatial_merge_size),
                "cu_seqlens": bounds,
                "max_seqlen": int((bounds[1:] - bounds[:-1]).max()),
                "window_index": index,
                "cu_window_seqlens": window_bounds,
                "max_window_seqlen": int((window_bounds[1:] - window_bounds[:-1]).max()),
            }
        return dict(self._vision_arguments[size])

    def losses(self, batch: Batch, heads: AuxiliaryHeads) -> dict[str, torch.Tensor]:
        """Return the mean loss of each kind of branch and of the dense heads."""
        states, visual, patches = self.hidden_states(batch.images, batch.branches)
        labels, kinds = batch.branches[:, LABELS], batch.branches[:, KINDS]
        keep = labels != IGNORE_INDEX
        logits = self.model.lm_head(states[keep])
        each = F.cross_entropy(logits.float(), labels[keep], reduction="none")
        kinds = kinds[keep]
        losses = {
            name: (each * (kinds == kind)).sum() / (kinds == kind).sum().clamp(min=1)
            for name, kind in (("probe", PROBE), ("box", BOXES), ("question", QUESTION))
        }
        losses["dense"] = heads.tokens.loss(visual, batch.owner, batch.objects)
        losses["patch"] = heads.patches.loss(patches, self.as_patches(batch.patch_owner), batch.objects)
        return losses

    def probe_scores(self, images: torch.Tensor, branches: torch.Tensor) -> torch.Tensor:
        """Return the probability of yes at each of the 20 probes, (batch, 20) float32."""
        states, *_ = self.hidden_states(images, branches)
        at_probe = (branches[:, LABELS] == self.encoder.yes_id) | (branches[:, LABELS] == self.encoder.no_id)
        at_probe &= branches[:, KINDS] == PROBE
        logits = self.model.lm_head(states[at_probe])[:, [self.encoder.yes_id, self.encoder.no_id]].float()
        return logits.softmax(dim=-1)[:, 0].reshape(images.shape[0], len(CATEGORIES))
