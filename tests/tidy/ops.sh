#!/bin/sh
# Every op of kernels/ops.def has its twin, its CUDA kernel, its parity case (which the emulator runs
# too) and its bench row. The linker says the same of each; this prints the counts, and names what is
# missing where no compiler has looked yet. Usage: ops.sh SOURCE_DIR
set -u
cd "$1" || exit 1
ops=$(sed -n 's/^MEED_OP(\([a-z_0-9]*\),.*/\1/p' kernels/ops.def)
total=0 missing=0
twins=0 kernels=0 parity=0 bench=0
look() { # look WHAT PATTERN FILES...
    what=$1 pattern=$2
    shift 2
    grep -qE "$pattern" "$@" && return 0
    echo "ops: $op has no $what"
    missing=$((missing + 1))
    return 1
}
for op in $ops; do
    total=$((total + 1))
    look "CPU twin" "MEED_TWIN\($op\)" kernels/cpu/*.c && twins=$((twins + 1))
    look "CUDA kernel" "meed_cuda_$op\(" kernels/cuda/*.cu && kernels=$((kernels + 1))
    look "parity case" "parity_case_$op\(" tests/parity/*.c && parity=$((parity + 1))
    look "bench row" "run_$op\(" bench/op_cases.c && bench=$((bench + 1))
done
echo "ops: $total in the registry, $twins twins, $kernels CUDA kernels," \
    "$parity parity cases, $bench bench rows"
[ $total -gt 0 ] && [ $missing = 0 ]
