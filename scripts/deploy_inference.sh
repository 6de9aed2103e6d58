#!/usr/bin/env bash
# Start the inspection API on http://localhost:8080. MODEL, HOST and PORT set what their names say; TENSOR_PARALLEL_SIZE
# above 1 spreads the model over GPUs, by vLLM. Arguments are passed on to `xray-vqa serve`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

arguments=()
if [[ -n "${MODEL:-}" ]]; then arguments+=(--model "$MODEL"); fi
if [[ -n "${HOST:-}" ]]; then arguments+=(--host "$HOST"); fi
if [[ -n "${PORT:-}" ]]; then arguments+=(--port "$PORT"); fi
exec xray-vqa serve "${arguments[@]}" "$@"
