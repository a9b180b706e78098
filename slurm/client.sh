#!/bin/bash
# One client of federation.sbatch: task k of the step takes the k-th ID=DATA.
#
#   client.sh MEED ADDRESS MODEL STATE THREADS ID=DATA...
#
# Everything it says goes to STATE/clients/ID.log; its state survives the job, so a restart goes on
# from its last checkpoint.
set -euo pipefail
meed=$1 address=$2 model=$3 state=$4 threads=$5
shift $((5 + SLURM_PROCID))
id=${1%%=*}
exec "$meed" --log info join --server "$address" --server-name aggregator --id "$id" \
    --model "$model" --data "${1#*=}" --state "$state/clients/$id" --threads "$threads" \
    --tls-ca "$state/keys/ca.pem" --tls-cert "$state/keys/client-$id.pem" \
    --tls-key "$state/keys/client-$id.key" >> "$state/clients/$id.log" 2>&1
