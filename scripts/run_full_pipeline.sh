#!/usr/bin/env bash
# The whole pipeline in one command; the same as `xray-vqa demo --profile full`. Asks before it spends money or hours.
#   bash scripts/run_full_pipeline.sh [--profile demo|full] [--yes]
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
exec xray-vqa demo --profile full "$@"
