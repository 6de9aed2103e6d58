"""The model and the loop as transformers' Trainer knows them; what is ours about both."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer

from xray_vqa.errors import ConfigError
from xray_vqa.modeling.last_layer import use_last_layer_in_part
from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.modeling.packed_tree import TreeLayout, use_packed_attention
from xray_vqa.modeling.prompt_tree import as_attention_mask
from xray_vqa.modeling.seeing import visual_tokens
from xray_vqa.training.augment import recolour
from xray_vqa.training.averaging import WEIGHTS_NAME, WeightAverages
from xray_vqa.training.checkpoints import copy_trained, load_trained, save_trained, whole_weights
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
        use_packed_attention(loaded.base)
        use_last_layer_in_part(loaded.base)
        if dense_weight:
            self.heads = DenseHeads(loaded.base.lm_head.in_features)

    @property
    def config(self) -> Any:
        return self.model.config

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return the embeddings of text, where the Trainer puts NEFTune's noise."""
        return self._loaded.base.get_input_embeddings()

    def get_output_embeddings(self) -> torch.nn.Module:
        """Return the output layer, which may share its weights with the embeddings."""
        return self._loaded.base.lm_head

    def gradient_checkpointing_enable(self, **arguments: Any) -> None:
        self.model.gradient_checkpointing_enable(**arguments)

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        supervised: torch.Tensor,
        position_ids: torch.Tensor,
        visual: torch.Tensor,
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
            visual: (visual tokens,) int64, where the images' tokens stand.
            trees: Where in the sequence the trees stand.
            image_grid_thw: (images, 3) int64. Only its length counts, as the batch's; the frames say the rest.
            frames: One (height, width, 3) uint8 tensor an image.
            weights: (1, length) float32, what each prediction counts.
            recolouring: (images, RECOLOURING), in which colours each image is shown.
            owner: (images, visual tokens), with `objects` and `named` what `DenseHeads` are asked.
            objects: See `DenseHeads.loss`.
            named: See `DenseHeads.loss`.
            num_items_in_batch: Supervised tokens of the whole accumulation window; the loss is divided by it.
        """
        base, processor = self._loaded.base, self._loaded.processor
        dtype = next(base.model.visual.parameters()).dtype
        frames = [frame.to(input_ids.device) for frame in frames]
        if recolouring is not None:
            frames = [recolour(f[None], r[None])[0] for f, r in zip(frames, recolouring, strict=True)]
        grid = processor.grid_thw(frames)
        patches = torch.cat([processor.patchify(frame[None], dtype) for frame in frames])
        seen = visual_tokens(base, patches, grid)
        embedded = base.get_input_embeddings()(input_ids)
        logits = self.model(
            inputs_embeds=embedded.index_copy(1, visual, seen[None].to(embedded.dtype)),
            position_ids=position_ids,
            attention_mask=as_attention_mask(None),
            trees=trees,
            kept=supervised,
            use_cache=False,
        ).logits
        each = F.cross_entropy(logits[0].float(), labels[0, supervised], reduction="none")
        count = num_items_in_batch if num_items_in_batch is not None else len(supervised)
        loss = (each * weights[0, supervised]).sum() / count
        if self.heads is not None and owner is not None and objects is not None:
            sizes = (grid.prod(dim=1) // processor.merge_size**2).tolist()
            by_image = pad_sequence(list(seen.split(sizes)), batch_first=True)
            # Counted by the answers, so that batches of one accumulation window add up to their mean.
            share = len(supervised) / count
            loss = loss + self._dense_weight * share * self.heads.loss(by_image, owner, objects, named)
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

    averages: WeightAverages | None = None
    """Evaluated and saved in place of the weights, if there are any."""

    def _shown(self) -> AbstractContextManager[None]:
        return self.averages.shown() if self.averages is not None else nullcontext()

    def _evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        with self._shown():
            return super()._evaluate(*arguments, **named)

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of the weights alone."""
        deepspeed: Any = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        return self.is_fsdp_enabled or (deepspeed is not None and deepspeed.zero_stage == 3)

    def write_trained(self, target: Path) -> None:
        """Write what the run has led to: the best weights, or the last. Every process calls it."""
        best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
        if self.is_sharded and best is None:
            self.save_model(str(target), _internal_call=True)
        elif self.args.should_save and self.is_sharded:
            copy_trained(Path(str(best)), target)
        elif self.args.should_save:
            save_trained(self.accelerator.unwrap_model(self.model).model, target)

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        target = Path(output_dir or str(self.args.output_dir))
        target.mkdir(parents=True, exist_ok=True)
        tree: Any = self.accelerator.unwrap_model(self.model)
        with self._shown():
            save_trained(tree.model, target, whole_weights(state_dict, "model.") if self.is_sharded else None)
            if tree.heads is not None:
                heads = whole_weights(state_dict, "heads.") if self.is_sharded else tree.heads.state_dict()
                torch.save(heads, target / HEADS_NAME)
        if self.averages is not None:
            self.averages.save(target)
        torch.save(self.args, target / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        checkpoint = Path(resume_from_checkpoint)
        tree: Any = self.accelerator.unwrap_model(self.model)
        load_trained(tree.model, checkpoint)
        if tree.heads is not None:
            tree.heads.load_state_dict(torch.load(checkpoint / HEADS_NAME, map_location="cpu", weights_only=True))
        if self.averages is not None:
            self.averages.resume(checkpoint)
        elif (checkpoint / WEIGHTS_NAME).is_file():
            raise ConfigError(f"{checkpoint} was trained with ema_decay; give it again, or use another output_dir")

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is None or self.is_sharded:  # of which `write_trained` takes the files
            return
        logger.info("going back to the best checkpoint %s (%s)", best, self.state.best_metric)
        load_trained(self.accelerator.unwrap_model(self.model).model, Path(best))
        if self.averages is not None:
            self.averages.restart()


def _path_of(name: str, paths: Iterable[str]) -> str | None:
    """Return the first of some module paths within which a weight lies."""
    return next((path for path in paths if f".{path}." in f".{name}"), None)
