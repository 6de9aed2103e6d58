#!/usr/bin/env bash
# Write pairs about 100 scans as a trial, and print their quality.
#   PROVIDER=template bash scripts/test_llm_generation.sh         free; or set ANTHROPIC_API_KEY or OPENAI_API_KEY
#   MODEL=... SAMPLES_PER_IMAGE=5 MAX_IMAGES=20 DATASET_DIR=data/synth OUTPUT_DIR=data bash scripts/test_llm_generation.sh
# More options of `xray-vqa generate` may follow.
set -euo pipefail
# shellcheck source=scripts/_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

dataset_dir="${DATASET_DIR:-data/stcray}"
output="${OUTPUT_DIR:-data}/stcray_vqa_train_test.jsonl"

xray-vqa generate \
  --annotations "$dataset_dir/train/annotations.json" \
  --output "$output" \
  --model "${MODEL:-}" \
  --samples-per-image "${SAMPLES_PER_IMAGE:-3}" \
  --max-images "${MAX_IMAGES:-100}" \
  "$@"
echo "look at them:  head -n 20 $output | python -m json.tool --json-lines" >&2
echo "check them:    python data/llm_vqa_generator.py --output $output --validate" >&2
