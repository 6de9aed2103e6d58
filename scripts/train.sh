#!/usr/bin/env bash
# Fine-tune on all GPUs of this machine; the same as `xray-vqa train`.
#   bash scripts/train.sh [CONFIG] [CHECKPOINT] [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
exec xray-vqa train "$@"
