"""Write question-answer pairs about scans; the same as `xray-vqa generate`."""

from xray_vqa.cli.main import run_module

if __name__ == "__main__":
    raise SystemExit(run_module("generate", "data/llm_vqa_generator.py"))
