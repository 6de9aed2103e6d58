"""Everything of a pre-training run that changes from step to step, and its checkpoints.

A checkpoint is a folder `checkpoint-STEP` of safetensors pieces that a limited transfer can carry, and a small JSON.
With it a run goes on exactly where it was, but for the pool of scans, which is simulated anew.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file

from xray_vqa.config.train import PretrainConfig
from xray_vqa.errors import ConfigError
from xray_vqa.training.averaging import move_averages

SHARD_SIZE = "15MB"
STATE_NAME = "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_FIXED = ("seed", "initial_weights", "profiles", "size_wh", "vision_depth", "text_depth")


@dataclass(slots=True)
class RunState:
    """Weights, their moving average, the optimizer and how far the run is."""

    parameters: dict[str, torch.nn.Parameter]
    """Of the model and, behind `heads.`, of the auxiliary heads."""
    averages: dict[str, torch.Tensor]
    """The model's parameters averaged over steps (EMA); what is written in the end."""
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    """Training time so far, over all runs of the command."""

    @classmethod
    def begin(cls, model: torch.nn.Module, heads: torch.nn.Module, config: PretrainConfig) -> "RunState":
        """Return the state before the first step."""
        parameters = dict(model.named_parameters())
        averages = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        parameters |= {f"heads.{name}": parameter for name, parameter in heads.named_parameters()}
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": config.weight_decay},
                {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=next(model.parameters()).is_cuda,
        )
        return cls(parameters, averages, optimizer)

    def update(self, rate: float, config: PretrainConfig) -> None:
        """Take one step along the gradients at learning rate `rate`, and move the averages after it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        trained = [self.parameters[name].data for name in self.averages]
        move_averages(list(self.averages.values()), trained, config.ema_decay, self.step)
        self.step += 1

    def use_averages(self) -> None:
        """Put the averaged weights into the model. The run is over after that."""
        with torch.no_grad():
            for name, average in self.averages.items():
                self.parameters[name].copy_(average)

    def save(self, output_dir: Path, config: PretrainConfig) -> None:
        """Write a checkpoint, whole or not at all, and remove the one before it."""
        tensors = {f"weights.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        tensors |= {f"average.{name}": average for name, average in self.averages.items()}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"{moment}.{name}": moments[moment] for moment in _MOMENTS if moment in moments}
        target = output_dir / f"checkpoint-{self.step}"
        unfinished = output_dir / "unfinished-checkpoint"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        save_torch_state_dict({n: t.cpu().clone() for n, t in tensors.items()}, unfinished, max_shard_size=SHARD_SIZE)
        state = {"step": self.step, "seconds": self.seconds, "run": _identity(config)}
        (unfinished / STATE_NAME).write_text(json.dumps(state, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        for older in _checkpoints(output_dir):
            if older != target:
                shutil.rmtree(older)

    def resume(self, output_dir: Path, config: PretrainConfig) -> bool:
        """Go back to the newest checkpoint in a folder; return whether there was one.

        Raises:
            ConfigError: The checkpoint is of another run.
        """
        found = max(_checkpoints(output_dir), key=_step_of, default=None)
        if found is None:
            return False
        state = json.loads((found / STATE_NAME).read_text())
        changed = [key for key, value in _identity(config).items() if state["run"].get(key) != value]
        if changed:
            raise ConfigError(
                f"{found} was made with another {' and '.join(changed)}; use another output_dir, or remove {found}"
            )
        tensors: dict[str, torch.Tensor] = {}
        for piece in sorted(found.glob("*.safetensors")):
            tensors |= load_file(piece)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"weights.{name}"])
            for name, average in self.averages.items():
                average.copy_(tensors[f"average.{name}"])
        self.step, self.seconds = state["step"], state["seconds"]
        for name, parameter in self.parameters.items():
            moments = {moment: tensors[f"{moment}.{name}"].to(parameter.device) for moment in _MOMENTS}
            on = parameter.device if parameter.is_cuda else "cpu"  # where the fused and the plain optimizer keep it
            self.optimizer.state[parameter] = moments | {"step": torch.tensor(float(self.step), device=on)}
        return True


def discard_checkpoints(output_dir: Path) -> None:
    """Remove what a finished run does not need any more."""
    for folder in _checkpoints(output_dir):
        shutil.rmtree(folder)


def _checkpoints(output_dir: Path) -> list[Path]:
    return [folder for folder in output_dir.glob("checkpoint-*") if (folder / STATE_NAME).is_file()]


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _identity(config: PretrainConfig) -> dict[str, Any]:
    """What must not change between the runs of a command that goes on."""
    settings = config.model_dump(mode="json")
    return {key: settings[key] for key in _FIXED}
