#!/bin/bash
# One command for a machine with a GPU:
#
#   bash tests/gpu/run.sh OUT            builds, tests, measures; OUT/gpu.json and OUT/gpu.log
#   bash tests/gpu/run.sh --bundle F     builds alone and packs the programs, their libraries and the
#                                        embedded model into F (.tar.gz), for a machine without them
#   bash tests/gpu/run.sh OUT            in the unpacked bundle: the same tests there
#
# In order: what GPU this is; the probes of every intrinsic wrapper; parity of every op, twice; the
# engine's tests and golden models; compute-sanitizer's memcheck and racecheck on small shapes where
# it is installed; training on CPU and GPU side by side; the benches, each suite by itself (rpc and
# values are left out: they ask nothing of a GPU). Each program has a time limit, and ten minutes
# after the build nothing is started any more; what failed or was left out is recorded and the rest
# still runs. Exit code 0 where everything passed.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=build-gpu
[ -d gpu-bundle ] && build=gpu-bundle # we are in a bundle

build_all() {
    cmake -S . -B $build -G Ninja -DMEED_GPU_TESTS=ON > /dev/null &&
        cmake --build $build --target meed_gpu_tests meed_cuda -- --quiet
}

if [ "${1:-}" = --bundle ]; then
    [ $# = 2 ] || { echo "usage: run.sh --bundle FILE.tar.gz"; exit 2; }
    build_all || exit 1
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    to=$root/gpu-bundle
    mkdir -p "$to/gpu-tests" "$to/lib" "$root/tests/gpu" "$root/examples" "$root/bench"
    for file in $build/meed $build/meed_bench $build/gpu-tests/gpu_*; do
        strip -o "$to/${file#"$build"/}" "$file"
    done
    cp $build/libmeed_cuda.so "$to/"
    # Everything but the C library and the loader, which belong to the machine.
    ldd $build/meed_bench $build/gpu-tests/gpu_* | awk '$3 ~ /^\// {print $3}' | sort -u |
        grep -vE '/lib(c|m|dl|pthread|rt)\.so|ld-linux' | xargs cp -Lt "$to/lib"
    cp tests/gpu/run.sh "$root/tests/gpu/" && cp -r tests/golden "$root/tests/" &&
        cp -r examples/tiny "$root/examples/" && cp -r bench/peers "$root/bench/" &&
        tar -C "$root" -czf "$2" . && ls -l "$2"
    exit
fi
[ $# = 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1
mkdir -p "$out"
log=$out/gpu.log
: > "$log"
if [ $build = gpu-bundle ]; then
    export LD_LIBRARY_PATH=$PWD/$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else
    build_all 2>&1 | tee -a "$log" || exit 1
fi

rows= failed=0 deadline=$((SECONDS + 590))
record() { # record KIND NAME LIMIT COMMAND...
    kind=$1 name=$2 limit=$3 left=$((deadline - SECONDS))
    shift 3
    [ $left -ge "$limit" ] || limit=$left
    [ "$limit" -gt 0 ] || { limit=1; set -- sh -c 'echo "no time is left"; exit 1'; }
    begin=$(date +%s%N)
    echo "=== $kind $name" >> "$log"
    timeout "$limit" "$@" >> "$log" 2>&1
    code=$?
    took=$((($(date +%s%N) - begin) / 1000000))
    [ $code = 0 ] && word=passed || { word=FAILED; failed=$((failed + 1)); }
    printf '%-12s %-24s %-7s %6d ms\n' "$kind" "$name" $word $took | tee -a "$log"
    rows="$rows${rows:+,}
    {\"kind\": \"$kind\", \"name\": \"$name\", \"code\": $code, \"milliseconds\": $took}"
}

gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null |
    head -n 1)
echo "GPU: ${gpu:-none seen by nvidia-smi}" | tee -a "$log"

record probe intrinsics 30 $build/gpu-tests/gpu_probes
for program in $build/gpu-tests/gpu_parity_* $build/gpu-tests/gpu_engine_*; do
    name=${program##*/gpu_}
    record "${name%%_*}" "${name#*_}" 60 "$program"
done
if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck; do
        for program in $build/gpu-tests/gpu_parity_*; do
            MEED_GPU_SMALL=1 record $tool "${program##*_}" 40 \
                compute-sanitizer --tool $tool --error-exitcode 9 "$program"
        done
    done
else
    echo "compute-sanitizer: not installed, skipped" | tee -a "$log"
fi

tiny=examples/tiny
for device in cpu cuda; do
    record train $device 60 $build/meed train --device $device --model $tiny/model \
        --data $tiny/clients/bank.jsonl --out "$out/adapter-$device" --steps 20 --seed 1 \
        --dtype f32 --json "$out/train-$device.jsonl"
done
suites="kernels lora train coalitions stack planner generate codec ranks"
for suite in $suites; do
    record bench $suite 100 $build/meed_bench $suite --device cuda --json "$out/bench-$suite.json"
done
train_json=$out/bench-train.json
if python3 -c 'import torch, transformers, peft' 2> /dev/null && [ -s "$train_json" ]; then
    record peers torch 200 python3 bench/peers/peer_torch.py --device cuda --suite train \
        --meed $build/meed_bench --json "$train_json"
fi

{
    printf '{\n  "gpu": "%s",\n  "date": "%s",\n  "failed": %d,\n  "tests": [%s\n  ],\n' \
        "$gpu" "$(date -u +%FT%TZ)" $failed "$rows"
    printf '  "bench": {'
    comma=
    for suite in $suites; do
        [ -s "$out/bench-$suite.json" ] || continue
        printf '%s\n  "%s": ' "$comma" "$suite"
        cat "$out/bench-$suite.json"
        comma=,
    done
    printf '}}\n'
} > "$out/gpu.json"
grep -E 'goal|MISSED|TFLOP|tokens/s|of the' "$log" | tail -n 80
echo "$failed failed; $out/gpu.json, $log"
[ $failed = 0 ]
