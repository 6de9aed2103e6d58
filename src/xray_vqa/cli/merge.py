"""Merge a LoRA adapter into its base model and write the result as an ordinary checkpoint."""

import argparse
from pathlib import Path

EPILOG = """\
examples:
  xray-vqa merge outputs/qwen25vl_stcray_lora --output-dir outputs/qwen25vl_stcray_merged

The sum is made in fp32 and then written in the base's own format. The merged model has another digest, so calibrate it
again: xray-vqa evaluate --model outputs/qwen25vl_stcray_merged --calibrate
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", type=Path, help="the folder with the adapter")
    parser.add_argument("--output-dir", type=Path, required=True, help="where the merged model is written")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="bf16", help="of the written weights (default: bf16)"
    )


def run(args: argparse.Namespace) -> int:
    from xray_vqa.modeling.export import merge_adapter

    print(merge_adapter(args.adapter, args.output_dir, args.precision))
    return 0
