#!/usr/bin/env bash
# Fine-tune on all GPUs of this machine, through torchrun; the same as `xray-vqa train`. Several hosts: examples/launch.
#   bash scripts/train.sh [CONFIG] [CHECKPOINT] [key=value ...]
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
exec xray-vqa train "$@"
