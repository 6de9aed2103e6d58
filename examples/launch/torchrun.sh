#!/usr/bin/env bash
# Several hosts by hand: run this on each of them, with its own rank, within 15 minutes.
#   NODE_RANK=0 MASTER_ADDR=host0 bash examples/launch/torchrun.sh configs/train_stcray.yaml
#   NODE_RANK=1 MASTER_ADDR=host0 bash examples/launch/torchrun.sh configs/train_stcray.yaml
# Code, data and output_dir lie on storage that all hosts see under the same path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# torchrun kills what is not through with its checkpoint so many seconds after a SIGTERM; 30 unless told.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600

# One process a GPU. `xray-vqa train` sees that torchrun has started it.
exec torchrun --nnodes="${NNODES:-2}" --node-rank="${NODE_RANK:?0 on the first host}" \
  --nproc-per-node="${GPUS:-gpu}" --master-addr="${MASTER_ADDR:?the first host}" --master-port="${MASTER_PORT:-29500}" \
  -m xray_vqa train "$@"
