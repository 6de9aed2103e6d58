"""Fine-tune on this machine; the same as `xray-vqa train`."""

from xray_vqa.cli.main import run_module

if __name__ == "__main__":
    raise SystemExit(run_module("train", "training/train_local.py"))
