# shellcheck shell=bash
# A real one-node Slurm in a private folder, for the tests of slurm/: munged, slurmctld and slurmd on
# loopback, without systemd, cgroups or a database, as root or not. Sourced.
#
# cluster_start FOLDER starts it and exports SLURM_CONF; cluster_stop ends what was started, by its
# recorded process ids. Two partitions: `low`, whose jobs are requeued when `high` wants the node.
# cred_expire is also the delay of a requeue, hence 5 s instead of 120.

cluster_pids=()

cluster_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 30000))
        (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break
    done
    echo $port
}

cluster_config() {
    local folder=$1 host user
    host=$(hostname -s)
    user=$(id -un)
    cat << END
ClusterName=meed
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.sock,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=$(cluster_port)
SlurmdPort=$(cluster_port)
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=3
MessageTimeout=10
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=500 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30 PreemptMode=REQUEUE
PartitionName=high Nodes=$host MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
END
}

# cluster_poll SECONDS COMMAND...: until the command succeeds.
cluster_poll() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

cluster_idle() {
    [ "$(sinfo -h -o %T -p low 2> /dev/null)" = idle ]
}

cluster_start() {
    local folder=$1
    mkdir -p "$folder/spool" "$folder/log"
    mkdir -m 0700 "$folder/state"
    head -c 128 /dev/urandom > "$folder/munge.key"
    chmod 0600 "$folder/munge.key"
    cluster_config "$folder" > "$folder/slurm.conf"
    export SLURM_CONF=$folder/slurm.conf
    munged --force -F --key-file="$folder/munge.key" --socket="$folder/munge.sock" \
        --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" \
        --seed-file="$folder/munge.seed" > /dev/null 2>&1 &
    cluster_pids+=($!)
    cluster_poll 10 test -S "$folder/munge.sock" || return 1
    slurmctld -D -f "$SLURM_CONF" > /dev/null 2>&1 &
    cluster_pids+=($!)
    slurmd -D -f "$SLURM_CONF" > /dev/null 2>&1 &
    cluster_pids+=($!)
    cluster_poll 30 cluster_idle
}

cluster_stop() {
    local i pid
    for ((i = ${#cluster_pids[@]} - 1; i >= 0; i--)); do
        pid=${cluster_pids[i]}
        kill -TERM "$pid" 2> /dev/null
        for _ in $(seq 25); do
            kill -0 "$pid" 2> /dev/null || break
            sleep 0.2
        done
        kill -KILL "$pid" 2> /dev/null
        wait "$pid" 2> /dev/null
    done
    cluster_pids=()
}

# cluster_state JOB: its state; cluster_restarts JOB: how often it was requeued.
cluster_state() {
    scontrol show job "$1" 2> /dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' | head -n 1
}
cluster_restarts() {
    scontrol show job "$1" 2> /dev/null | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p' | head -n 1
}
cluster_ended() {
    case $(cluster_state "$1") in
    COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL | DEADLINE) return 0 ;;
    *) return 1 ;;
    esac
}
