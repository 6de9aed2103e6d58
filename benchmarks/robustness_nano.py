"""How nano's detection falls when scans get worse: `xray-vqa robustness` on simulated scans with masks.

    python benchmarks/robustness_nano.py [--scans 100] [--only KIND[=S,S] ...] [--json FILE] [--work-dir DIR]

Without --only all 28 conditions are measured. Turned items have the boxes of their turned masks. Stopped at any moment,
the same command goes on; each finished condition is never predicted again. The file is the command's own result.
"""

import argparse
import os
import shutil
from pathlib import Path

from xray_vqa.cli.main import main as command
from xray_vqa.simulation.writer import SynthSettings, write_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--scans", type=int, default=100, help="default %(default)s")
    add("--only", nargs="+", default=[], metavar="KIND[=S,S]", help="these perturbations alone")
    add("--device", default="cpu", help="default %(default)s")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that simulate")
    add("--work-dir", type=Path, default=Path("outputs/robustness_nano"), help="default %(default)s")
    add("--json", type=Path, help="write the results here too")
    args = parser.parse_args()
    root, pairs = args.work_dir / "sim", args.work_dir / "sim_val.jsonl"
    settings = SynthSettings(seed=7, clean_share=0.35, masks=True)
    write_dataset(root, {"test": 150}, settings, args.workers)
    words = ["--annotations", str(root / "test/annotations.json"), "--output", str(pairs), "--provider", "template"]
    output = args.work_dir / "rob" / "robustness.json"
    done = command(["generate", *words])
    done = done or command([
        "robustness", "--model", "nano", "--device", args.device, "--test-file", str(pairs),
        "--max-images", str(args.scans), "--output", str(output), *(["--only", *args.only] if args.only else []),
    ])  # fmt: skip
    if args.json and not done:
        shutil.copyfile(output, args.json)
    raise SystemExit(done)


if __name__ == "__main__":
    main()
