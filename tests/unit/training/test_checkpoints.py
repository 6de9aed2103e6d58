"""Which checkpoints count, and which are removed."""

import os
from pathlib import Path

import pytest

from xray_vqa.config.train import TrainConfig
from xray_vqa.errors import ConfigError
from xray_vqa.training.checkpoints import (
    WHOLE_NAME,
    drop_oldest,
    images_per_update,
    mark_whole,
    newest_checkpoint,
    put_aside_broken,
)


def write(output_dir: Path, step: int, *, written_at: int = 0) -> Path:
    checkpoint = output_dir / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "optimizer.pt").write_bytes(b"moments")
    mark_whole(checkpoint)
    os.utime(checkpoint / WHOLE_NAME, (written_at, written_at))
    return checkpoint


def names(output_dir: Path) -> list[str]:
    return sorted(path.name for path in output_dir.iterdir())


def test_the_newest_is_the_one_with_the_most_updates(tmp_path: Path):
    assert newest_checkpoint(tmp_path) is None
    write(tmp_path, 900)
    last = write(tmp_path, 1000)
    assert newest_checkpoint(tmp_path) == last


def cut(checkpoint: Path) -> None:
    (checkpoint / "optimizer.pt").write_bytes(b"mom")


def lose(checkpoint: Path) -> None:
    (checkpoint / "optimizer.pt").unlink()


def leave_unmarked(checkpoint: Path) -> None:
    (checkpoint / WHOLE_NAME).unlink()


def cut_the_mark(checkpoint: Path) -> None:
    (checkpoint / WHOLE_NAME).write_text('{"optim')


@pytest.mark.parametrize("damage", [cut, lose, leave_unmarked, cut_the_mark])
def test_a_damaged_checkpoint_is_put_aside(tmp_path: Path, damage, caplog):
    whole = write(tmp_path, 2)
    damage(write(tmp_path, 4))
    assert newest_checkpoint(tmp_path) == whole
    put_aside_broken(tmp_path)
    assert names(tmp_path) == ["broken-checkpoint-4", "checkpoint-2"]
    assert "checkpoint-4 is not whole" in caplog.text


def test_old_checkpoints_go_by_their_age_and_never_the_best_or_the_last(tmp_path: Path):
    best, _, _ = (write(tmp_path, step, written_at=step) for step in (2, 4, 6))
    gone_back = write(tmp_path, 3, written_at=9)  # the run went on from checkpoint-2
    drop_oldest(tmp_path, 3, keep={best.name, gone_back.name})
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3", "checkpoint-6"]
    drop_oldest(tmp_path, 1, keep={best.name, gone_back.name})
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]
    drop_oldest(tmp_path, None, keep=set())
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]


def test_a_run_keeps_the_images_an_update_it_was_started_with(tmp_path: Path):
    config = TrainConfig(output_dir=tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=3)
    checkpoint = write(tmp_path, 2)
    (tmp_path / "run.json").write_text('{"images_per_update": 24}')
    assert images_per_update(config, checkpoint, num_ranks=2) == 24
    assert images_per_update(config, None, num_ranks=2) == 12  # there is nothing to go on from
    with pytest.raises(ConfigError, match=r"24 images an update, too few for 25 processes; go on with 24 GPUs"):
        images_per_update(config, checkpoint, num_ranks=25)
