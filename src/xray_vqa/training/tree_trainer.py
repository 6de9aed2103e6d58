"""The model and the loop as transformers' Trainer knows them; what is ours about both."""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.data_loader import prepare_data_loader
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from xray_vqa.core.jsonl import disk_errors
from xray_vqa.errors import ConfigError, DatasetError
from xray_vqa.modeling.last_layer import use_last_layer_in_part
from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.modeling.packed_tree import TreeLayout, use_packed_attention
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX
from xray_vqa.modeling.recurrent_tree import use_recurrent_trees
from xray_vqa.modeling.seeing import visual_tokens
from xray_vqa.training.averaging import WEIGHTS_NAME, WeightAverages
from xray_vqa.training.checkpoints import (
    copy_trained,
    drop_oldest,
    load_trained,
    mark_whole,
    save_trained,
    unmark,
    whole_weights,
)
from xray_vqa.training.dense import DenseHeads
from xray_vqa.training.inputs.augment import recolour
from xray_vqa.training.inputs.data_wait import DataWait
from xray_vqa.training.inputs.faulty import ScanFaulty
from xray_vqa.training.inputs.sampling import DealtBatches, WithSpares
from xray_vqa.training.planning.parts import PartsTrainer
from xray_vqa.training.watching.gates import LossWatch, check_weights

logger = logging.getLogger(__name__)

HEADS_NAME = "dense_heads.pt"
"""In checkpoints alone: they are no part of what a run leaves."""


class TreeModel(torch.nn.Module):
    """The model as the Trainer calls it: patches are cut and the mask is made on its device."""

    accepts_loss_kwargs = True
    """Without which the Trainer gives no `num_items_in_batch`, and every micro-batch would count alike."""

    def __init__(self, loaded: LoadedModel, *, dense_weight: float = 0.0) -> None:
        super().__init__()
        self.model = loaded.model
        self._loaded = loaded
        self._dense_weight = dense_weight
        self.heads: DenseHeads | None = None
        self._seen = torch.empty(0)
        if loaded.spec.trains_packed:
            use_packed_attention(loaded.base)
            use_recurrent_trees(loaded.base)
            use_last_layer_in_part(loaded.base)
        if dense_weight:
            self.heads = DenseHeads(loaded.base.lm_head.in_features)
            if not loaded.spec.trains_packed:
                loaded.base.get_submodule(loaded.spec.vision_tower).register_forward_hook(self._keep_seen)

    def _keep_seen(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self._seen = output.pooler_output

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
        image_grid_thw: torch.Tensor,
        frames: list[torch.Tensor],
        weights: torch.Tensor,
        visual: torch.Tensor | None = None,
        trees: TreeLayout | None = None,
        attention_mask: torch.Tensor | None = None,
        images: Sequence[str] = (),
        recolouring: torch.Tensor | None = None,
        owner: torch.Tensor | None = None,
        objects: torch.Tensor | None = None,
        named: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the loss on the answer tokens.

        Args:
            input_ids: (rows, length) int64; packed trees are one row.
            labels: (rows, length) int64, at the positions that predict them.
            supervised: (n,) int64, where in any row a label stands; the rest never meets the wide output layer.
            position_ids: (3, rows, length) int64.
            image_grid_thw: (images, 3) int64. Only its length counts, as the batch's; the frames say the rest.
            frames: One (height, width, 3) uint8 tensor an image.
            weights: (rows, length) float32, what each prediction counts.
            visual: (visual tokens,) int64, where in the one row the images' tokens stand.
            trees: Where in the one row the trees stand; without it rows are branches.
            attention_mask: (rows, length) int64, 0 on the padding of rows that are branches.
            images: What the frames are of, for whoever has to name them.
            recolouring: (images, RECOLOURING), in which colours each image is shown.
            owner: (images, visual tokens), with `objects` and `named` what `DenseHeads` are asked.
            objects: See `DenseHeads.loss`.
            named: See `DenseHeads.loss`.
            num_items_in_batch: Supervised tokens of the whole update, over all ranks; the loss is divided by it.
        """
        base, processor, spec = self._loaded.base, self._loaded.processor, self._loaded.spec
        dtype = next(base.get_submodule(spec.vision_tower).parameters()).dtype
        frames = [frame.to(input_ids.device) for frame in frames]
        if recolouring is not None:
            frames = [recolour(f[None], r[None])[0] for f, r in zip(frames, recolouring, strict=True)]
        grid = processor.grid_thw(frames)
        patches = torch.cat([processor.patchify(frame[None], dtype) for frame in frames])
        if trees is not None and visual is not None:
            seen, deeper = visual_tokens(base, patches, grid)
            embedded = base.get_input_embeddings()(input_ids)
            further: dict[str, Any] = {}
            if deeper:
                is_visual = torch.zeros_like(input_ids).index_fill(1, visual, 1).bool()
                further = {"visual_pos_masks": is_visual, "deepstack_visual_embeds": deeper}
            states = base.get_submodule(spec.language_model)(
                inputs_embeds=embedded.index_copy(1, visual, seen[None].to(embedded.dtype)),
                position_ids=position_ids,
                trees=trees,
                kept=supervised,
                use_cache=False,
                **further,
            ).last_hidden_state
            logits = base.lm_head(states)
        else:
            logits = self.model(
                input_ids=input_ids,
                position_ids=position_ids,
                attention_mask=attention_mask,
                pixel_values=patches,
                image_grid_thw=grid.to(patches.device),
                use_cache=False,
                logits_to_keep=supervised,
            ).logits
            seen = self._seen
        wanted = labels[:, supervised].flatten()
        each = F.cross_entropy(logits.flatten(0, 1).float(), wanted, ignore_index=IGNORE_INDEX, reduction="none")
        num_wanted = (wanted != IGNORE_INDEX).sum()
        count = num_items_in_batch if num_items_in_batch is not None else num_wanted
        loss = (each * weights[:, supervised].flatten()).sum() / count
        if self.heads is not None and owner is not None and objects is not None:
            sizes = (grid.prod(dim=1) // processor.merge_size**2).tolist()
            by_image = pad_sequence(list(seen.split(sizes)), batch_first=True)
            # Counted by the answers, so that batches of one accumulation window add up to their mean.
            share = num_wanted / count
            loss = loss + self._dense_weight * share * self.heads.loss(by_image, owner, objects, named)
        return {"loss": loss}


class TreeTrainer(PartsTrainer):
    """transformers' Trainer; only saving knows that the module is wrapped."""

    own_rates: Mapping[str, float] = {}
    """Learning rates by module path, for modules that have their own."""
    averages: WeightAverages | None = None
    """Evaluated and saved in place of the weights, if there are any."""
    batches: DealtBatches | None = None
    """What each update learns from; without it the Trainer's own shuffling."""
    num_checkpoints: int | None = None
    """How many to keep. The Trainer would remove an old one before the new one is whole."""
    generation: Callable[[int, int], dict[str, float]] | None = None
    """Metrics beside the loss, from rank and number of ranks; see `GenerationEvaluation`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.loss_watch = LossWatch()
        self._data_wait = DataWait()
        self.add_callback(self._data_wait)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return this rank's micro-batches."""
        if self.batches is None:
            return super().get_train_dataloader()
        loader: DataLoader[Any] = DataLoader(
            WithSpares(self.batches.items),
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # As one process of one: these are this rank's already. The Trainer passes the epoch on, and skips on resume, in
        # the batch sampler, where no image is opened for it.
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True,
            non_blocking=self.args.dataloader_pin_memory,
        )  # fmt: skip

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """Return what transformers returns, and watch that a training loss is a number."""
        result: Any = super().compute_loss(model, inputs, *arguments, **named)
        if model.training:
            loss = result[0] if isinstance(result, tuple) else result
            self.loss_watch.see(loss, self.state.global_step + 1, inputs.get("images", ()))
        return result

    def evaluation_loop(self, *arguments: Any, **named: Any) -> Any:
        """Return the loss on the development scans, and what generating answers to some of them shows."""
        output = super().evaluation_loop(*arguments, **named)
        if self.generation is not None and output.metrics is not None:
            found = self.generation(self.args.process_index, self.args.world_size)
            output.metrics.update({f"eval_{name}": value for name, value in found.items()})
        return output

    def get_batch_samples(self, epoch_iterator: Any, *arguments: Any) -> Any:
        """Return the next batches of an update; the time that it takes is told with the loss.

        Raises:
            DatasetError: A scan that could be read at the start cannot be any more.
        """
        try:
            return super().get_batch_samples(self._data_wait.watch(epoch_iterator), *arguments)
        except ScanFaulty as fault:
            # A worker's error holds its whole traceback; what its user needs is the end.
            reason = str(fault).rstrip().rpartition("ScanFaulty: ")[2]
            raise DatasetError(
                f"{reason}. It could be read when the run began; mend it, and the same command goes on from the newest "
                "checkpoint"
            ) from fault

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        """Log figures; with the loss of some updates, which share of their time they waited for data."""
        if "loss" in logs:
            logs["data_wait"] = self._data_wait.take_share()
        super().log(logs, *arguments)

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

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.loss_watch.settle()
        check_weights(self.accelerator.unwrap_model(self.model), self.state.global_step)
        output_dir = Path(str(self.args.output_dir))
        target = output_dir / f"checkpoint-{self.state.global_step}"
        try:
            with disk_errors(output_dir):
                if self.args.should_save:
                    unmark(target)
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()  # each rank has written its random state
                if self.args.should_save:
                    mark_whole(target)
        except Exception:
            if self.args.should_save:
                shutil.rmtree(target, ignore_errors=True)
            raise
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            drop_oldest(output_dir, self.num_checkpoints, keep={target.name, Path(best or target).name})

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
