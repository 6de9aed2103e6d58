"""The auxiliary task of training: each visual token names the category that covers it, and where that item is.

Answers alone teach a small model too little. The heads are dropped afterwards.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from xray_vqa.core.geometry import Box
from xray_vqa.core.taxonomy import CATEGORIES

UNKNOWN = -1
"""Owner of a token of which nobody knows what covers it, and of padding."""


class DenseHeads(torch.nn.Module):
    """What each visual token is asked beside the questions: which category covers it, and where that item is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.category = torch.nn.Linear(width, len(CATEGORIES) + 1)
        self.box = torch.nn.Linear(width, 4)

    def loss(
        self, visual: torch.Tensor, owner: torch.Tensor, objects: torch.Tensor, named: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean loss over the tokens.

        Args:
            visual: (batch, tokens, width) visual tokens as the decoder gets them.
            owner: (batch, tokens) int64, 0 for none, k + 1 for object k, `UNKNOWN` where nothing is learnt.
            objects: (batch, objects, 5) category index and box in fractions.
            named: (batch, categories) bool, what the scan's source labels; by default everything. A token is not
                taught that it is free of others.
        """
        with torch.autocast(visual.device.type, enabled=False):
            visual = visual.float()
            logits = self.category(visual)
            if named is not None:
                logits = logits.masked_fill(~F.pad(named, (1, 0), value=True)[:, None], -torch.inf)
            covered, owned = owner > 0, _owned(owner, objects)
            distance = (self.box(visual) - owned[..., 1:]).abs().mean(dim=-1)
            box_loss = (distance * covered).sum() / covered.sum().clamp(min=1)
            return _category_loss(logits, owner, owned) + 2.0 * box_loss


class PatchHead(torch.nn.Module):
    """What each patch is asked before four of them are merged into a visual token: which category covers it.

    Many a blade is narrower than a visual token. Needs exact masks, which only the simulator has.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = torch.nn.RMSNorm(width)
        self.category = torch.nn.Linear(width, len(CATEGORIES) + 1)

    def loss(self, patches: torch.Tensor, owner: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over the patches.

        Args:
            patches: (batch, patches, width) states of the vision tower's last block.
            owner: (batch, patches) int64, 0 for none, k + 1 for object k.
            objects: (batch, objects, 5) category index and box in fractions.
        """
        with torch.autocast(patches.device.type, enabled=False):
            return _category_loss(self.category(self.norm(patches.float())), owner, _owned(owner, objects))


def _owned(owner: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
    """Return category index and box of what covers each place, (batch, places, 5); anything where nothing does."""
    return objects.gather(1, (owner - 1).clamp(min=0)[..., None].expand(*owner.shape, objects.shape[-1]))


def _category_loss(logits: torch.Tensor, owner: torch.Tensor, owned: torch.Tensor) -> torch.Tensor:
    covered = owner > 0
    wanted = torch.where(covered, owned[..., 0].long() + 1, 0)
    each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
    # Nine places of ten are empty; at full weight they would drown the rest.
    weight = (torch.where(covered, 1.0, 0.25) * (owner != UNKNOWN)).flatten()
    return (each * weight).sum() / weight.sum().clamp(min=1e-6)


def owners_of(boxes: Sequence[Box], grid_hw: tuple[int, int], factor: int) -> NDArray[np.int64]:
    """Return which box covers the middle of each visual token, (rows, columns); 0 for none, k + 1 for box k.

    Of several the smallest; a box that is smaller than a token has the one that its own middle lies in.

    Args:
        boxes: In pixels of the resized image.
        grid_hw: Rows and columns of visual tokens.
        factor: Pixels a side of one.
    """
    owner = np.zeros(grid_hw, np.int64)
    rows, columns = (factor * (np.arange(count) + 0.5) for count in grid_hw)
    for number in sorted(range(len(boxes)), key=lambda k: -boxes[k].area):
        x0, y0, x1, y1 = boxes[number].as_xyxy()
        x, y = (min(int(at / factor), count - 1) for at, count in zip(boxes[number].center, grid_hw[::-1], strict=True))
        owner[np.ix_((rows >= y0) & (rows <= y1), (columns >= x0) & (columns <= x1))] = number + 1
        owner[y, x] = number + 1
    return owner
