#!/bin/sh
# Every decoder under libFuzzer, AddressSanitizer and UBSan: `make fuzz`, or
#
#   FUZZ_SECONDS=600 sh tests/fuzz/run.sh [NAME…]     NAME as in tests/fuzz/fuzz_NAME.c
#
# Builds in build-fuzz/ and keeps what it learns there: build-fuzz/corpus/NAME grows from run to
# run, a finding is saved as build-fuzz/findings/NAME-… and the script fails at the end, after
# the other targets had their turn. Seeds: tests/fuzz/corpus/NAME plus files of the tree that are
# what a decoder reads. Without clang it says so and succeeds: there is nothing to run.
set -u
cd "$(dirname "$0")/../.." || exit 1
seconds=${FUZZ_SECONDS:-60}
out=build-fuzz

clang=${CLANG:-$(command -v clang || command -v clang-14 || command -v clang-16 || true)}
if [ -z "$clang" ]; then
    echo "fuzz: SKIPPED, no clang on this machine (apt-get install clang)"
    exit 0
fi

mkdir -p $out/findings
if ! cmake -S . -B $out -G Ninja -DCMAKE_C_COMPILER="$clang" -DMEED_FUZZ=ON > $out/configure.log 2>&1
then
    cat $out/configure.log
    exit 1
fi
cmake --build $out --target meed_fuzz -- --quiet || exit 1

names=$*
if [ -z "$names" ]; then
    for file in tests/fuzz/fuzz_*.c; do
        name=${file##*/fuzz_}
        names="$names ${name%.c}"
    done
fi

# Files of the tree that seed a target, besides tests/fuzz/corpus.
seeds_of() {
    case $1 in
    tokenizer_json) find tests/golden/tokenizer -name '*_style.json' ;;
    model_config) find tests/golden examples/tiny/model -name config.json ;;
    federation_file) echo examples/tiny/federation.yaml ;;
    esac
}

failed=
for name in $names; do
    corpus=$out/corpus/$name
    mkdir -p "$corpus"
    for file in tests/fuzz/corpus/"$name"/* $(seeds_of "$name"); do
        [ -f "$file" ] && cp "$file" "$corpus/seed-$(echo "$file" | cksum | cut -d ' ' -f 1)"
    done
    log=$out/$name.log
    if "$out/fuzz_$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 \
        -print_final_stats=1 -artifact_prefix="$out/findings/$name-" "$corpus" > "$log" 2>&1
    then
        runs=$(awk '/stat::number_of_executed_units/ {print $2}' "$log")
        edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
        printf 'fuzz: %-16s %10s runs, %6s edges, nothing found\n' "$name" "$runs" "$edges"
    else
        tail -n 40 "$log"
        echo "fuzz: $name FAILED, see $log and $out/findings/"
        failed="$failed $name"
    fi
done
[ -z "$failed" ] || { echo "fuzz: findings in$failed"; exit 1; }
