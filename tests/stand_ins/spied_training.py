"""`xray-vqa train` that notes which images each update learns from, as digests of their pixels.

python tests/stand_ins/spied_training.py NOTES_DIR CONFIG key=value ...
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from xray_vqa.cli.main import main
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX
from xray_vqa.training.tree_trainer import TreeTrainer


def spy_on_training(notes_path: Path, rank: int, kill_at: int) -> None:
    step_unseen = TreeTrainer.training_step

    def training_step(self: TreeTrainer, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
        learns = bool((inputs["labels"] != IGNORE_INDEX).any())
        images = [hashlib.sha256(frame.numpy().tobytes()).hexdigest()[:16] for frame in inputs["frames"] if learns]
        if rank == 0 and self.state.global_step + 1 == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        with notes_path.open("a") as notes:
            notes.write(json.dumps({"update": self.state.global_step + 1, "images": images}) + "\n")
        return step_unseen(self, model, inputs, *more, **named)

    TreeTrainer.training_step = training_step  # type: ignore[method-assign]


if __name__ == "__main__":
    notes_dir = Path(sys.argv[1])
    notes_dir.mkdir(parents=True, exist_ok=True)
    rank = int(os.environ.get("RANK", "0"))
    spy_on_training(notes_dir / f"{rank}.jsonl", rank, int(os.environ.get("KILL_AT", "0")))
    raise SystemExit(main(["train", *sys.argv[2:]]))
