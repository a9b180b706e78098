# shellcheck shell=bash
# Preemption, for the scripts of this folder: they source it, it runs their steps.
#
# What Slurm does (22.05, tried):
#
#   --signal=B:USR1@120       USR1 to the batch shell alone, before the time limit
#   preemption                TERM to the steps alone; TERM to all when the grace time is over
#   scancel, scontrol requeue TERM to all
#
# So the shell forwards what it gets, and a step that ended as one that was stopped (meed: exit code
# 13; or killed by TERM or USR1 before it could catch them) means the same as a signal of our own.
# The job then requeues itself at once, which frees the node before the grace time is over; a job
# that simply ended would count as completed. It waits for its end there, since leaving at once races
# with the requeue. But once the shell itself got TERM, Slurm has decided what becomes of the
# job, and a requeue would bring back what a person cancelled.
#
# bash runs a trap only between foreground commands: steps run in the background, and `wait` is
# called again after each trap.

MEED_HOME=${MEED_HOME:-$SLURM_SUBMIT_DIR}
MEED=${MEED:-$MEED_HOME/build/meed}
MEED_MAX_RESTARTS=${MEED_MAX_RESTARTS:-100}
meed_threads=${SLURM_CPUS_PER_TASK:-1}
meed_stopped=
meed_caught=
meed_pids=()

# USR1 whatever came: srun passes it on, but takes TERM as an order to kill its step at once.
meed_forward() {
    meed_stopped=$1
    meed_caught=$1
    for pid in "${meed_pids[@]}"; do
        kill -USR1 "$pid" 2> /dev/null
    done
}
trap 'meed_forward USR1' USR1
trap 'meed_forward TERM' TERM

# meed_start SRUN-OPTION... COMMAND...: a step in the background; its pid is in $!.
meed_start() {
    srun --cpus-per-task="$meed_threads" "$@" &
    meed_pids+=($!)
}

# meed_wait PID: its exit code in meed_code. A trapped signal ends `wait` early; 127 is the answer
# about a process whose code was told already.
meed_wait() {
    local code
    meed_code=127 # read by the scripts
    while :; do
        meed_caught=
        wait "$1"
        code=$?
        [ $code = 127 ] || meed_code=$code
        if [ -z "$meed_caught" ] || [ $code = 127 ]; then
            break
        fi
    done
}

# Whether the code is that of a step that was stopped and can go on.
meed_can_go_on() {
    case $1 in
    13 | 138 | 143) return 0 ;;
    0) return 1 ;;
    *) [ -n "$meed_stopped" ] ;;
    esac
}

# meed_end CODE: requeues the job if it was stopped, else ends it with the code.
meed_end() {
    local job=$SLURM_JOB_ID
    meed_can_go_on "$1" || exit "$1"
    # The first task of an array bears the number of the whole array.
    if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
        job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    fi
    sleep 1 & # TERM to all reaches the step first
    meed_wait $!
    if [ "$meed_stopped" = TERM ] || [[ $(scontrol show job "$job") != *JobState=RUNNING* ]]; then
        echo "stopped; the same submission goes on" >&2
        exit "$1"
    fi
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$MEED_MAX_RESTARTS" ]; then
        echo "stopped after $MEED_MAX_RESTARTS restarts; the same submission goes on" >&2
        exit "$1"
    fi
    trap - TERM USR1
    echo "stopped; requeueing job $job (restart ${SLURM_RESTART_COUNT:-0})" >&2
    scontrol requeue "$job" || exit "$1"
    sleep 300 &
    wait $!
    exit "$1"
}
