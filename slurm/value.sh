#!/bin/bash
# Price adapters with a job array: N shards, then one merge that depends on all of them.
#
#   slurm/value.sh [SBATCH-OPTION...] -- SHARDS STATE BUDGET JSON VALUE-OPTION...
#   slurm/value.sh -c 16 --time 1:00:00 -- 64 shards 1000 shares.json \
#       --model model --benchmark bench.jsonl --adapters round/*
#
# Prints the job numbers of the array and of the merge. Submit it again with the same arguments
# after any failure: what is scored stays scored. STATE and JSON lie on a file system that all nodes
# share; STATE belongs to one valuation.
set -euo pipefail
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    options+=("$1")
    shift
done
if [ $# -lt 6 ]; then
    echo "usage: slurm/value.sh [SBATCH-OPTION...] -- SHARDS STATE BUDGET JSON VALUE-OPTION..." >&2
    exit 2
fi
shift
here=$(cd "$(dirname "$0")" && pwd)
export MEED_HOME=${MEED_HOME:-$(dirname "$here")}
array=$(sbatch --parsable "${options[@]}" --array="1-$1" "$here/value.sbatch" "$@")
merge=$(sbatch --parsable "${options[@]}" --dependency="afterok:$array" \
    --kill-on-invalid-dep=yes "$here/value.sbatch" "$@")
echo "shards $array merge $merge"
