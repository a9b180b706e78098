/* Each op of the registry against the floor of this machine, in both dtypes.
 *
 * Shape: one layer of a 1B model (hidden 2,048, 32 query and 8 key heads, feed-forward 8,192) over
 * 1,024 rows in sequences of 256; four times the rows on a device with memory of its own. The floor
 * is max(FLOPs / GEMM rate, bytes / copy rate) with the rates of machine.h: 100 % means that
 * nothing is left to gain, more that operands stayed in a cache. A case that leaves results in
 * memory is first run once on the oracle and compared; sqnorm and lora_gate_grad, which give
 * float64 sums, are judged by tests/parity alone.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "bench/harness.h"
#include "bench/op_cases.h"

/* Against plain C in the same dtype: sums in another order, exponentials of another library. */
static const double bound[] = {[MEED_DTYPE_F32] = 2e-5, [MEED_DTYPE_BF16] = 2e-2};

static enum meed_status compare(const struct meed_op_case *c, const struct meed_op_case *oracle,
                                const char *name)
{
    enum meed_status st = MEED_OK;
    for (int i = 0; i < c->out_count && st == MEED_OK; i++) {
        int64_t count = c->outs[i].rows * c->outs[i].cols;
        float *mine = meed_heap_alloc((size_t)count, sizeof *mine);
        float *theirs = meed_heap_alloc((size_t)count, sizeof *theirs);
        double worst = 0, size = 0;
        st = mine && theirs ? MEED_OK : MEED_NOMEM;
        MEED_TRY_OUT(st);
        MEED_TRY_OUT(meed_bench_download(c->be, c->outs[i].data, count, c->outs[i].dtype, mine));
        MEED_TRY_OUT(meed_bench_download(oracle->be, oracle->outs[i].data, count,
                                         oracle->outs[i].dtype, theirs));
        for (int64_t j = 0; j < count; j++) {
            double error = fabs((double)mine[j] - (double)theirs[j]);
            worst = error > worst || isnan(error) ? error : worst;
            size = fmax(size, fabs((double)theirs[j]));
        }
        if (!(worst <= bound[c->dtype] * size)) {
            st = MEED_FAIL(MEED_NUMERIC, "%s %s, result %d: off by %g of %g", name,
                           meed_dtype_name(c->dtype), i, worst, size);
        }
    out:
        meed_heap_free(mine);
        meed_heap_free(theirs);
    }
    return st;
}

struct timed {
    struct meed_op_case *c;
    int idx;
};

static enum meed_status run_case(void *user)
{
    struct timed *timed = user;
    meed_op_cases[timed->idx].run(timed->c);
    return timed->c->be->sync(timed->c->be);
}

static enum meed_status bench_case(struct meed_bench_machine *machine, int idx,
                                   const struct meed_op_shape *shape, enum meed_dtype dtype)
{
    struct meed_op_case mine = {.block_count = 0}, oracle = {.block_count = 0};
    struct timed timed = {&mine, idx}, reference = {&oracle, idx};
    struct meed_bench_contestant contestant = {meed_op_cases[idx].name, run_case, &timed};
    struct meed_bench_result result;
    char name[64];
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(meed_op_case_open(&mine, idx, machine->be, shape, dtype));
    if (mine.out_count > 0) {
        MEED_TRY_OUT(meed_op_case_open(&oracle, idx, machine->oracle, shape, dtype));
        MEED_TRY_OUT(run_case(&reference));
        MEED_TRY_OUT(run_case(&timed));
        MEED_TRY_OUT(compare(&mine, &oracle, meed_op_cases[idx].name));
        meed_op_case_close(&oracle);
    }
    MEED_TRY_OUT(meed_bench_race(&contestant, 1, machine->smoke ? 1 : 7, &result));
    snprintf(name, sizeof name, "%s %s", meed_op_cases[idx].name, meed_dtype_name(dtype));
    double floor_s = meed_bench_floor_s(machine, dtype, mine.flops, mine.bytes);
    meed_bench_floor_row("kernels", name, result.median_s[0], mine.flops, mine.bytes, floor_s);
out:
    meed_op_case_close(&mine);
    meed_op_case_close(&oracle);
    return st;
}

static bool same_in_both(const char *name)
{
    return strcmp(name, "adamw") == 0 || strcmp(name, "sqnorm") == 0;
}

enum meed_status meed_suite_kernels(struct meed_bench_machine *machine)
{
    const struct meed_op_shape smoke = {48, 96, 160, 6, 2, 16, 8, 320, 16};
    struct meed_op_shape shape = {.rows = machine->be->host_memory ? 1024 : 4096,
                                  .hidden = 2048,
                                  .ffn = 8192,
                                  .heads = 32,
                                  .kv_heads = 8,
                                  .head_dim = 64,
                                  .rank = 16,
                                  .vocab = 8192,
                                  .length = 256};
    if (machine->smoke) {
        shape = smoke;
    }
    meed_bench_heading("kernels", "each op at a layer of a 1B model, against this machine's floor");
    MEED_TRY(meed_bench_machine_probe(machine, "kernels"));
    for (int idx = 0; idx < meed_op_case_count; idx++) {
        if (!same_in_both(meed_op_cases[idx].name)) {
            MEED_TRY(bench_case(machine, idx, &shape, MEED_DTYPE_BF16));
        }
        MEED_TRY(bench_case(machine, idx, &shape, MEED_DTYPE_F32));
    }
    printf("  %d rows: every op of the registry, and variants\n", meed_op_case_count);
    return MEED_OK;
}
