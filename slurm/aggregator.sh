# shellcheck shell=bash
# The aggregator's step, for federation.sbatch and serve.sbatch, after requeue.sh.
#
# meed_serve FEDERATION.yaml STATE ID=DATA...: keys in STATE/keys, made once, and `meed serve` in the
# background; its pid is in $!. The certificate is for the name "aggregator", so that the server may
# come back on any node; where it is, HOST:PORT, stands in STATE/address as soon as clients may dial.
# shellcheck disable=SC2154 # meed_threads is of requeue.sh
meed_serve() {
    local file=$1 state=$2 keys=$2/keys ids
    shift 2
    ids=$(IFS=, && echo "${*%%=*}")
    mkdir -p "$state/clients"
    if [ ! -e "$keys" ]; then
        "$MEED" provision "$keys" --server aggregator --clients "$ids" || exit
    fi
    rm -f "$state/address"
    meed_start --nodes=1 --ntasks=1 --overlap "$MEED" serve --config "$file" --state "$state" \
        --listen 0.0.0.0:0 --address-file "$state/address" --threads "$meed_threads" \
        --roster "$keys/roster.json" --ledger-key "$keys/ledger.key" --tls-ca "$keys/ca.pem" \
        --tls-cert "$keys/server.pem" --tls-key "$keys/server.key"
}
