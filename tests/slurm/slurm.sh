#!/bin/bash
# The scripts of slurm/ on a real Slurm: slurm.sh MEED SOURCE-FOLDER.
#
# Goal: a job array of shards merges to the bytes of one process; training that is warned, preempted,
# requeued or killed ends with the adapter of an undisturbed run, and so does a federation that is
# stopped in a round; scancel is final. Method: the shipped scripts,
# submitted unchanged to a cluster of one node that this test starts and ends. Without Slurm it says
# so and exits 77, which CTest counts as skipped.
set -euo pipefail
export MEED=$1 MEED_HOME=$2
here=$(cd "$(dirname "$0")" && pwd)
for tool in slurmctld slurmd munged sbatch; do
    if ! command -v $tool > /dev/null; then
        echo "skipped: no $tool here (apt-get install slurm-wlm munge)"
        exit 77
    fi
done
# shellcheck source=tests/slurm/cluster.sh
. "$here/cluster.sh"

folder=$(mktemp -d /tmp/meed-slurm.XXXXXX)
finish() {
    code=$?
    trap - EXIT
    set +e
    if [ $code != 0 ]; then
        tail -n 30 "$folder"/log/slurmctld.log "$folder"/*.out 2> /dev/null || true
    fi
    cluster_stop
    rm -rf "$folder"
    exit $code
}
trap finish EXIT
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
cluster_start "$folder" || fail "the cluster did not start"
cd "$folder"
tiny=$MEED_HOME/examples/tiny

submit() { # NAME SBATCH-ARGUMENT...: the job number; output in NAME.out
    local name=$1
    shift
    sbatch --parsable --output="$folder/$name.out" "$@"
}
completed() { # JOB RESTARTS
    cluster_poll 120 cluster_ended "$1" || fail "job $1 is still $(cluster_state "$1")"
    [ "$(cluster_state "$1")" = COMPLETED ] || fail "job $1 is $(cluster_state "$1")"
    [ "$(cluster_restarts "$1")" = "$2" ] ||
        fail "job $1 restarted $(cluster_restarts "$1") times, not $2"
}
lines_in() { # FILE COUNT
    [ -e "$1" ] && [ "$(wc -l < "$1")" -ge "$2" ]
}

# ---- training ----------------------------------------------------------------------------------
training=(--model "$tiny/model" --data "$tiny/clients/bank.jsonl" --steps 250 --rank 4 --lr 0.01
    --batch-tokens 256 --checkpoint-every 5)
"$MEED" train "${training[@]}" --out calm --threads 1 --quiet
train_job() { # NAME: a job that is past its first checkpoint
    job=$(submit "$1" "$MEED_HOME/slurm/train.sbatch" "${training[@]}" --out "$1" --json "$1.log")
    cluster_poll 60 lines_in "$1.log" 6 || fail "$1 does not train"
}
same_adapter() {
    cmp "calm/adapter_model.safetensors" "$1/adapter_model.safetensors" ||
        fail "$1 has another adapter than an undisturbed run"
    echo "ok: training, $2"
}

train_job warned
scancel --batch --signal=USR1 "$job"
completed "$job" 1
same_adapter warned "warned by USR1"

train_job preempted
high=$(submit high -p high -n 4 --wrap "sleep 1")
completed "$job" 1
completed "$high" 0
same_adapter preempted "preempted (TERM to the step alone)"

shared=("${training[@]}" --accumulation 3)
"$MEED" train "${shared[@]}" --steps 120 --out calm3 --threads 1 --quiet
job=$(submit shared -n 2 "$MEED_HOME/slurm/train.sbatch" "${shared[@]}" --steps 120 --out shared \
    --json shared.log)
cluster_poll 60 lines_in shared.log 6 || fail "two tasks do not train"
high=$(submit high2 -p high -n 4 --wrap "sleep 1")
completed "$job" 1
completed "$high" 0
cmp calm3/adapter_model.safetensors shared/adapter_model.safetensors ||
    fail "two tasks have another adapter than one process"
[ ! -e shared/rendezvous-"$job".0.1 ] || fail "the token of the rendezvous was left behind"
echo "ok: training by two tasks, preempted, has the bytes of one process"

job=$(submit lost -n 2 "$MEED_HOME/slurm/train.sbatch" "${shared[@]}" --steps 120 --out lost \
    --json lost.log)
cluster_poll 60 lines_in lost.log 6 || fail "two tasks do not train"
task=$(scontrol listpids "$job.0" | awk '$5 == 1 { print $1; exit }')
kill -KILL "$task" || fail "task 1 of job $job is not there"
cluster_poll 60 cluster_ended "$job" || fail "a job that lost a task does not end"
[ "$(cluster_state "$job")" = FAILED ] || fail "a job that lost a task is $(cluster_state "$job")"
job=$(submit found "$MEED_HOME/slurm/train.sbatch" "${shared[@]}" --steps 120 --out lost)
completed "$job" 0
cmp calm3/adapter_model.safetensors lost/adapter_model.safetensors ||
    fail "one task does not go on with what two had done"
echo "ok: a task killed, the training finished by one"

train_job requeued
scontrol requeue "$job"
completed "$job" 1
same_adapter requeued "requeued by the operator"

train_job killed
scancel --signal=KILL "$job.0"
cluster_poll 60 cluster_ended "$job" || fail "a killed job does not end"
[ "$(cluster_state "$job")" = FAILED ] || fail "a killed job is $(cluster_state "$job")"
[ -e killed/training.ckpt ] || fail "a killed job left no checkpoint"
job=$(submit again "$MEED_HOME/slurm/train.sbatch" "${training[@]}" --out killed)
completed "$job" 0
same_adapter killed "killed, submitted again"

train_job cancelled
scancel "$job"
cluster_poll 60 cluster_ended "$job" || fail "a cancelled job goes on"
sleep 3
[ "$(cluster_state "$job")" = CANCELLED ] || fail "a cancelled job is $(cluster_state "$job")"
[ -e cancelled/training.ckpt ] || fail "a cancelled job left no checkpoint"
grep -q "interrupted: stopped after step" cancelled.out || fail "a cancelled step did not end itself"
echo "ok: training, cancelled for good, with a checkpoint"

job=$(submit broken "$MEED_HOME/slurm/train.sbatch" --model nowhere --data d --out broken)
cluster_poll 60 cluster_ended "$job" || fail "a broken job does not end"
scontrol show job "$job" | grep -q "ExitCode=20:0" || fail "the job does not have meed's exit code"
echo "ok: bad input ends the job with meed's code"

# ---- valuation ---------------------------------------------------------------------------------
for client in clinic transit; do
    "$MEED" train --model "$tiny/model" --data "$tiny/clients/$client.jsonl" --steps 3 --rank 4 \
        --lr 0.01 --batch-tokens 256 --out $client --threads 1 --quiet
done
value=(--model "$tiny/model" --benchmark "$tiny/benchmark.jsonl" --adapters calm clinic transit)
"$MEED" value "${value[@]}" --budget 1001 --json one.json --threads 1 --quiet > /dev/null
jobs=$("$MEED_HOME/slurm/value.sh" --output="$folder/value-%A_%a.out" -- 3 shards 1001 many.json \
    "${value[@]}")
array=${jobs#shards }
array=${array%% *}
# The last task bears the array's own number: a careless requeue of it would take all of them along.
cluster_poll 60 test -e shards/valuation.txt || fail "no shard has started"
scancel --batch --signal=USR1 "${array}_3"
completed "${jobs##* }" 0
completed "${array}_1" 0
completed "${array}_3" 1
cmp one.json many.json || fail "the merge has other bytes than one process"
ls shards/shard-{1,2,3}-of-3.*.part > /dev/null
echo "ok: three shards, one of them requeued, and a merge have the bytes of one process"

# ---- a federation ------------------------------------------------------------------------------
head -n 24 "$tiny/benchmark.jsonl" > small.jsonl
sed -e "s|^model: .*|model: $tiny/model|" -e "s|^benchmark: .*|benchmark: small.jsonl|" \
    -e 's/^rounds: .*/rounds: 2/' -e 's/steps: .*/steps: 6/' -e '/id: \(library\|mixer\|idle\|transit\)/d' \
    "$tiny/federation.yaml" > federation.yaml
federation_job() { # NAME
    job=$(submit "$1" -n 2 "$MEED_HOME/slurm/federation.sbatch" federation.yaml "$tiny/model" "$1" \
        clinic="$tiny/clients/clinic.jsonl" bank="$tiny/clients/bank.jsonl")
}
federation_job steady
completed "$job" 0
federation_job shaken
cluster_poll 60 grep -qs "round 1: update of" shaken.out || fail "no update came in"
scancel --batch --signal=USR1 "$job"
completed "$job" 1
cmp steady/adapter/adapter_model.safetensors shaken/adapter/adapter_model.safetensors ||
    fail "the federation that was stopped has another adapter"
"$MEED" ledger verify shaken --key shaken/keys/ledger.pub > /dev/null
echo "ok: a federation in one allocation, stopped in a round and requeued"

# ---- the server in one job, clients in others ----------------------------------------------------
job=$(submit server "$MEED_HOME/slurm/serve.sbatch" federation.yaml apart clinic bank)
array=$(submit client-%a --array=1-2 "$MEED_HOME/slurm/join.sbatch" "$tiny/model" apart \
    clinic="$tiny/clients/clinic.jsonl" bank="$tiny/clients/bank.jsonl")
cluster_poll 60 grep -qs "round 1: update of" server.out || fail "no update came in"
scancel --batch --signal=USR1 "${array}_2"
scancel --batch --signal=USR1 "$job"
completed "$job" 1
completed "${array}_1" 0
completed "${array}_2" 1
cmp steady/adapter/adapter_model.safetensors apart/adapter/adapter_model.safetensors ||
    fail "the federation of three jobs has another adapter"
echo "ok: server and clients in three jobs, server and one client requeued"
