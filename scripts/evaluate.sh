#!/usr/bin/env bash
# Measure the fine-tuned model on the test pairs. Prints the four main numbers as JSON on stdout, the comparison table
# and the log on stderr, and writes everything to OUTPUT, with a page for people beside it. Stopped, the same command goes on.
#   MODEL=outputs/qwen25vl_stcray_lora TEST_FILE=data/stcray_vqa_val.jsonl OUTPUT=results/evaluation.json bash scripts/evaluate.sh
# More options of `xray-vqa evaluate` may follow, such as --calibrate --no-blind --max-samples 200. Rows for the
# base model, a majority guess and the same model on grey images stand beside it (docs/EVALUATION.md).
set -euo pipefail
# shellcheck source=scripts/_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

output="${OUTPUT:-results/evaluation.json}"
exec xray-vqa evaluate \
  --model "${MODEL:-outputs/qwen25vl_stcray_lora}" \
  --test-file "${TEST_FILE:-data/stcray_vqa_val.jsonl}" \
  --output "$output" \
  --report "${output%.json}.html" \
  "$@"
