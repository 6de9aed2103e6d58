#!/usr/bin/env bash
# Write the pairs to train on (stcray_vqa_train.jsonl) and those to measure with (stcray_vqa_val.jsonl, from the test
# scans). Stopped at any moment, the same command goes on. A paid provider asks before it spends; --yes agrees.
#   PROVIDER=template bash scripts/generate_full_vqa.sh           free; or set ANTHROPIC_API_KEY or OPENAI_API_KEY
#   MODEL=... SAMPLES_PER_IMAGE=5 MAX_IMAGES=1000 DATASET_DIR=data/synth OUTPUT_DIR=data bash scripts/generate_full_vqa.sh
# More options of `xray-vqa generate` may follow, such as --rate-limit-delay 2.0 or --dry-run.
set -euo pipefail
# shellcheck source=scripts/_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

dataset_dir="${DATASET_DIR:-data/stcray}"
output_dir="${OUTPUT_DIR:-data}"
limit=()
if [ -n "${MAX_IMAGES:-}" ]; then
  limit=(--max-images "$MAX_IMAGES")
fi

write_pairs() { # SPLIT NAME [OPTION ...]
  xray-vqa generate \
    --annotations "$dataset_dir/$1/annotations.json" \
    --output "$output_dir/$2" \
    --model "${MODEL:-}" \
    --samples-per-image "${SAMPLES_PER_IMAGE:-3}" \
    "${limit[@]}" "${@:3}"
}

write_pairs train stcray_vqa_train.jsonl "$@"
write_pairs test stcray_vqa_val.jsonl "$@"
