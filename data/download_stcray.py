"""Fetch STCray and write it as a dataset; the same as `xray-vqa data download`."""

from xray_vqa.cli.main import run_module

if __name__ == "__main__":
    raise SystemExit(run_module("data_download", "data/download_stcray.py"))
