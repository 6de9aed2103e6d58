"""The model and the loop as transformers' Trainer knows them; what is ours about both."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer

from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.modeling.packed_tree import TreeLayout, use_packed_attention
from xray_vqa.modeling.prompt_tree import as_attention_mask
from xray_vqa.training.augment import recolour
from xray_vqa.training.checkpoints import load_trained, save_trained
from xray_vqa.training.dense import DenseHeads

logger = logging.getLogger(__name__)

HEADS_NAME = "dense_heads.pt"
"""In checkpoints alone: they are no part of what a run leaves."""


class TreeModel(torch.nn.Module):
    """The model as the Trainer calls it: patches are cut and the mask is made on its device."""

    def __init__(self, loaded: LoadedModel, *, dense_weight: float = 0.0) -> None:
        super().__init__()
        self.model = loaded.model
        self._loaded = loaded
        self._dense_weight = dense_weight
        self.heads: DenseHeads | None = None
        self._visual = torch.empty(0)
        use_packed_attention(loaded.base)
        if dense_weight:
            self.heads = DenseHeads(loaded.base.lm_head.in_features)
            loaded.base.model.visual.register_forward_hook(self._keep_visual)

    def _keep_visual(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self._visual = output.pooler_output

    @property
    def config(self) -> Any:
        return self.model.config

    def gradient_checkpointing_enable(self, **arguments: Any) -> None:
        self.model.gradient_checkpointing_enable(**arguments)

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        supervised: torch.Tensor,
        position_ids: torch.Tensor,
        trees: TreeLayout,
        image_grid_thw: torch.Tensor,
        frames: list[torch.Tensor],
        weights: torch.Tensor,
        recolouring: torch.Tensor | None = None,
        owner: torch.Tensor | None = None,
        objects: torch.Tensor | None = None,
        named: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the loss on the answer tokens.

        Args:
            input_ids: (1, length) int64.
            labels: (1, length) int64, at the positions that predict them.
            supervised: (n,) int64, where a label stands; the rest never meets the wide output layer.
            position_ids: (3, 1, length) int64.
            trees: Where in the sequence the trees stand.
            image_grid_thw: (images, 3) int64, as transformers wants it.
            frames: One (height, width, 3) uint8 tensor an image.
            weights: (1, length) float32, what each prediction counts.
            recolouring: (images, RECOLOURING), in which colours each image is shown.
            owner: (images, visual tokens), with `objects` and `named` what `DenseHeads` are asked.
            objects: See `DenseHeads.loss`.
            named: See `DenseHeads.loss`.
            num_items_in_batch: Supervised tokens of the whole accumulation window; the loss is divided by it.
        """
        base = self._loaded.base
        dtype = next(base.model.visual.parameters()).dtype
        frames = [frame.to(input_ids.device) for frame in frames]
        if recolouring is not None:
            frames = [recolour(f[None], r[None])[0] for f, r in zip(frames, recolouring, strict=True)]
        processor = self._loaded.processor
        patches = processor.patches_of(frames, dtype)[0]
        logits = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=as_attention_mask(None),
            trees=trees,
            longest_image=max(frame.shape[0] * frame.shape[1] for frame in frames) // processor.patch_size**2,
            num_images=len(frames),
            pixel_values=patches,
            image_grid_thw=image_grid_thw,
            use_cache=False,
            logits_to_keep=supervised,
        ).logits
        each = F.cross_entropy(logits[0].float(), labels[0, supervised], reduction="none")
        count = num_items_in_batch if num_items_in_batch is not None else len(supervised)
        loss = (each * weights[0, supervised]).sum() / count
        if self.heads is not None and owner is not None and objects is not None:
            sizes = (image_grid_thw.prod(dim=1) // processor.merge_size**2).tolist()
            visual = pad_sequence(list(self._visual.split(sizes)), batch_first=True)
            # Counted by the answers, so that batches of one accumulation window add up to their mean.
            share = len(supervised) / count
            loss = loss + self._dense_weight * share * self.heads.loss(visual, owner, objects, named)
        return {"loss": loss}


class TreeTrainer(Trainer):
    """transformers' Trainer; only saving knows that the module is wrapped."""

    own_rates: Mapping[str, float] = {}
    """Learning rates by module path, for modules that have their own."""

    def create_optimizer(self, *arguments: Any, **named: Any) -> Any:
        """Return the optimizer, modules with a learning rate of their own in groups of their own."""
        optimizer: Any = super().create_optimizer(*arguments, **named)
        tree: Any = self.model
        paths = {id(weight): _path_of(name, self.own_rates) for name, weight in tree.named_parameters()}
        for group in list(optimizer.param_groups):
            weights = group["params"]
            group["params"] = [weight for weight in weights if paths[id(weight)] is None]
            for path, rate in self.own_rates.items():
                apart = [weight for weight in weights if paths[id(weight)] == path]
                if apart:
                    optimizer.add_param_group({**group, "params": apart, "lr": rate})
        return optimizer

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return the matrices: transformers goes by names, and misses the vision tower's norms and DoRA's lengths."""
        return [name for name, weight in model.named_parameters() if weight.ndim >= 2]

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Any] | None = None) -> None:
        target = Path(output_dir or str(self.args.output_dir))
        target.mkdir(parents=True, exist_ok=True)
        tree: Any = self.accelerator.unwrap_model(self.model)
        save_trained(tree.model, target)
        if tree.heads is not None:
            torch.save(tree.heads.state_dict(), target / HEADS_NAME)
        torch.save(self.args, target / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        tree: Any = self.accelerator.unwrap_model(self.model)
        load_trained(tree.model, Path(resume_from_checkpoint))
        if tree.heads is not None:
            path = Path(resume_from_checkpoint) / HEADS_NAME
            tree.heads.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is not None:
            logger.info("going back to the best checkpoint %s (%s)", best, self.state.best_metric)
            load_trained(self.accelerator.unwrap_model(self.model).model, Path(best))


def _path_of(name: str, paths: Iterable[str]) -> str | None:
    """Return the first of some module paths within which a weight lies."""
    return next((path for path in paths if f".{path}." in f".{name}"), None)
