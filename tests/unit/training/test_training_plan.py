"""What is found out about a run's data before it starts, by several processes together."""

import multiprocessing
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from PIL import Image

from xray_vqa.training.inputs.image_cache import check_scans
from xray_vqa.training.inputs.scans import TrainingScan
from xray_vqa.training.planning.plan import check_together
from xray_vqa.training.ranks import Ranks


def make_scans(folder: Path) -> list[TrainingScan]:
    """Seven scans of which the third is cut off, the fourth missing, and the sixth of another size."""
    found: list[TrainingScan] = []
    for number in range(7):
        path = folder / f"{number}.png"
        Image.effect_noise((64, 48), 50).save(path)
        found.append(TrainingScan(path, (64, 48), (), (), (), ()))
    found[2].image_path.write_bytes(found[2].image_path.read_bytes()[:500])
    found[3].image_path.unlink()
    Image.effect_noise((48, 64), 50).save(found[5].image_path)
    return found


def check_as(rank: int, world: int, meeting: Path, folder: Path) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Return what a process read, and what it learnt is wrong: kind and message by name."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    scans = [TrainingScan(folder / f"{number}.png", (64, 48), (), (), (), ()) for number in range(7)]
    opened: list[str] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".png"):
            opened.append(Path(str(arguments[0])).name)

    sys.addaudithook(note)
    faults = check_together(scans, Ranks(rank, world, torch.device("cpu")))
    dist.barrier()
    dist.destroy_process_group()
    return opened, {path.name: (fault.kind, str(fault)) for path, fault in faults.items()}


def test_processes_read_each_image_once_between_them_and_all_know_each_fault(tmp_path):
    scans = make_scans(tmp_path)
    alone = {path.name: (fault.kind, str(fault)) for path, fault in check_scans(scans).items()}
    assert {name: kind for name, (kind, _) in alone.items()} == {
        "2.png": "unreadable", "3.png": "missing", "5.png": "size"
    }  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        told = pool.starmap(check_as, [(rank, 2, tmp_path / "meeting", tmp_path) for rank in range(2)], chunksize=1)
    assert sorted(told[0][0] + told[1][0]) == [scan.image_path.name for scan in scans]
    assert all(opened for opened, _ in told)
    assert told[0][1] == told[1][1] == alone
