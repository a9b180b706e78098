#!/bin/bash
# Real processes, real signals: an aggregator and six clients over mutual TLS are killed with -9 at
# named moments and started again; the final adapter's bytes and the ledger's head must be those of
# an undisturbed run. Usage: processes.sh MEED SOURCE_DIR [MOMENT...]
#   training  the server while clients train      push    server, then a client, in mid-upload
#   valuing   the server inside the valuation      storm   both, again and again
set -u
meed=$1
tiny=$2/examples/tiny
shift 2
moments=${*:-training push valuing storm}
work=$(mktemp -d "${TMPDIR:-/tmp}/meed-kill-XXXXXX")
keys=$work/keys
ids="clinic bank library transit mixer idle"
trap 'kill -9 $(jobs -p) 2> /dev/null; rm -rf "$work"' EXIT

"$meed" provision "$keys" --server localhost,127.0.0.1 --clients "${ids// /,}" > /dev/null || exit 1

awk 'NR == 1 || NR % 4 == 0' "$tiny/benchmark.jsonl" > "$work/benchmark.jsonl"

federation() { # rank and an uncompressed codec make uploads long enough to be caught
    sed -e "s#^model: .*#model: $tiny/model#" -e "s#^benchmark: .*#benchmark: $work/benchmark.jsonl#" \
        -e "s#data: clients#data: $tiny/clients#" -e 's/^rounds: .*/rounds: 2/' \
        -e 's/steps: .*/steps: 8/' -e 's/rank: .*/rank: 128/' -e 's/alpha: .*/alpha: 256/' \
        -e 's/lr: .*/lr: 0.001/' -e 's/lr_min: .*/lr_min: 0.001/' \
        -e 's/values: .*/values: f32/' -e 's/zstd: .*/zstd: 0/' "$tiny/federation.yaml"
}

serve() {
    "$meed" --log info serve --config "$run/federation.yaml" --state "$run/state" \
        --listen "127.0.0.1:$port" --roster "$keys/roster.json" --ledger-key "$keys/ledger.key" \
        --tls-ca "$keys/ca.pem" --tls-cert "$keys/server.pem" --tls-key "$keys/server.key" \
        --quiet --linger 8s >> "$run/server.log" 2>&1 &
    server=$!
}

join() {
    behaviour=honest
    [ "$1" = idle ] && behaviour=idle
    "$meed" --log info join --server "127.0.0.1:$port" --id "$1" --model "$tiny/model" \
        --data "$tiny/clients/$1.jsonl" --state "$run/$1" --threads 1 --behaviour $behaviour \
        --checkpoint-every 2 --tls-ca "$keys/ca.pem" --tls-cert "$keys/client-$1.pem" \
        --tls-key "$keys/client-$1.key" >> "$run/$1.log" 2>&1 &
    eval "client_$1=$!"
}

await() { # await TEST...: until the command succeeds, a minute at most
    for _ in $(seq 1 3000); do
        eval "$*" > /dev/null 2>&1 && return 0
        sleep 0.02
    done
    echo "never came: $*"
    return 1
}

kill_server() { { kill -9 "$server" && wait "$server"; } 2> /dev/null; sleep 0.3; serve; }
kill_client() { { eval "kill -9 \$client_$1 && wait \$client_$1"; } 2> /dev/null; join "$1"; }

disturb() {
    case $1 in
    none) ;;
    training) await "ls $run/bank/round-*/train.ckpt" && kill_server ;;
    push)
        await "[ -n \"\$(ls -A $run/state/partial)\" ]" && kill_server
        await "ls $run/clinic/round-*/update.bin" && kill_client clinic
        ;;
    valuing) await "grep -q 'valuing 6' $run/server.log" && sleep 0.5 && kill_server ;;
    storm)
        for turn in 1 2 3 4; do
            sleep 0.$((turn * 2 + 1))
            kill_server
            kill_client "$(echo "$ids" | cut -d' ' -f$turn)"
        done
        ;;
    esac
}

outcome() { # runs one federation, prints what must be equal
    run=$work/$1
    port=$((20000 + ($$ + RANDOM) % 30000))
    mkdir -p "$run"
    federation > "$run/federation.yaml"
    serve
    for id in $ids; do join "$id"; done
    disturb "$1" >&2
    wait
    sha256sum < "$run/state/adapter/adapter_model.safetensors"
    "$meed" ledger verify "$run/state" | grep head
}

expected=$(outcome none)
case $expected in *head*) ;; *) echo "the undisturbed run failed"; tail "$work/none/server.log"; exit 1 ;; esac
failed=0
for moment in $moments; do
    if [ "$(outcome "$moment")" = "$expected" ]; then
        echo "$moment: same adapter, same ledger"
    else
        echo "$moment: DIFFERENT"
        tail -n 5 "$work/$moment"/*.log
        failed=1
    fi
done
exit $failed
