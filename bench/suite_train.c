/* Tokens a second of one LoRA step, and the step over the time of its own GEMMs.
 *
 * Random weights and tokens; every token carries loss, so the LM head runs on every row (the peers
 * have no choice). The loss of the first step is checked against ln V, where random weights must
 * put it. Rank 8 on all seven projections. Shapes: the embedded model, SmolLM2-135M with its
 * vocabulary of 49,152, and on a device Qwen2.5-0.5B and Llama-3.2-1B at 8 sequences of 128, as the
 * peers run them.
 *
 * The second figure asks what is added to the work that cannot be avoided: every frozen linear and
 * the head, forward and dx, timed here at the step's own shapes. A device has goals for it over 16k
 * tokens in sequences of 2,048. Of Llama-3-8B these are 4 of the 32 layers under the whole head (1
 * on the CPU, where memory allows): the same ratio in every layer, of both sides.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "bench/harness.h"
#include "bench/shapes.h"
#include "engine/trainer.h"

enum { MAX_STEPS = 64 };

/* tokens = sequences × (length − 1) rows a step */
struct workload {
    const char *name, *what;
    struct meed_model_config config;
    enum meed_dtype dtype;
    int32_t length, sequences;
    int steps;
    double goal; /* of step ÷ GEMMs; 0: none */
};

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

/* --- the GEMMs of a step ---------------------------------------------------------------------- */

struct gemm {
    const struct meed_backend *be;
    struct meed_mat x, w, y, dx; /* [M, K], [N, K], [M, N], [M, K] */
};

static enum meed_status run_gemms(void *user)
{
    struct gemm *g = user;
    g->be->matmul(g->be, MEED_MATMUL_NT, g->x, g->w, false, g->y);
    g->be->matmul(g->be, MEED_MATMUL_NN, g->y, g->w, false, g->dx);
    return g->be->sync(g->be);
}

/* Seconds of y = x·Wᵀ and dx = y·W. */
static enum meed_status time_gemm(const struct meed_bench_machine *machine, int64_t m, int64_t k,
                                  int64_t n, enum meed_dtype dtype, double *seconds)
{
    struct gemm g = {.be = machine->be};
    struct meed_bench_contestant contestant = {"gemm", run_gemms, &g};
    struct meed_bench_result result;
    enum meed_status st = MEED_OK;
    g.x = meed_bench_mat(g.be, m, k, dtype, 1, 1);
    g.w = meed_bench_mat(g.be, n, k, dtype, 2, 0.05);
    g.y = meed_bench_mat(g.be, m, n, dtype, 3, 0);
    g.dx = meed_bench_mat(g.be, m, k, dtype, 4, 0);
    void *blocks[] = {g.x.data, g.w.data, g.y.data, g.dx.data};
    st = blocks[0] && blocks[1] && blocks[2] && blocks[3] ? MEED_OK : MEED_NOMEM;
    MEED_TRY_OUT(st);
    MEED_TRY_OUT(meed_bench_race(&contestant, 1, machine->smoke ? 1 : 5, &result));
    *seconds = result.median_s[0];
out:
    g.be->forget(g.be, g.w.data);
    for (size_t i = 0; i < MEED_COUNT(blocks); i++) {
        if (blocks[i]) {
            g.be->free(g.be, blocks[i]);
        }
    }
    return st;
}

/* All of a step over `rows`; the head in parts of at most 2,048 rows, whose logits fit. */
static enum meed_status time_step_gemms(const struct meed_bench_machine *machine,
                                        const struct workload *load, int64_t rows, double *seconds)
{
    double layer = 0, part = 0;
    for (int group = 0; group < MEED_GROUP_COUNT; group++) {
        MEED_TRY(time_gemm(machine, rows, meed_group_inputs(&load->config, (enum meed_group)group),
                           meed_group_outputs(&load->config, (enum meed_group)group), load->dtype,
                           &part));
        layer += part;
    }
    int64_t head_rows = MEED_MIN(rows, 2048);
    MEED_TRY(
        time_gemm(machine, head_rows, load->config.hidden, load->config.vocab, load->dtype, &part));
    *seconds = load->config.layers * layer + part * (double)rows / (double)head_rows;
    return MEED_OK;
}

/* --- the step --------------------------------------------------------------------------------- */

static void print_rows(const struct meed_bench_machine *machine, const struct workload *load,
                       double rate, double rows, double gemm_s, int64_t launches)
{
    char row[96];
    char label[64];
    double flops = 4 * meed_bench_weights(&load->config); /* forward and dx, a token */
    snprintf(label, sizeof label, "%s %s%s", load->name, meed_dtype_name(load->dtype), load->what);
    meed_bench_row("train", label, rate, "tokens/s", 0, '>');
    snprintf(row, sizeof row, "%s, of the GEMM ceiling", label);
    meed_bench_row("train", row, 100 * rate * flops / machine->gemm_flops[load->dtype], "%", 0,
                   '>');
    snprintf(row, sizeof row, "%s, step / its GEMMs", label);
    meed_bench_row("train", row, rows / rate / gemm_s, "x", load->goal, '<');
    if (launches > 0) {
        snprintf(row, sizeof row, "%s, launches in graphs", label);
        meed_bench_row("train", row, (double)launches, "a step", 0, '<');
    }
}

static enum meed_status measure(const struct meed_bench_machine *machine,
                                const struct workload *load,
                                const struct meed_checkpoint *checkpoint,
                                const struct meed_sequence *data, int32_t data_count)
{
    struct meed_train_options options = meed_train_defaults();
    struct meed_adapter *start = NULL;
    struct meed_trainer *trainer = NULL;
    struct meed_train_report report = {0};
    double rates[MAX_STEPS], gemm_s = 0;
    int64_t rows = (int64_t)load->sequences * (load->length - 1);
    enum meed_status st = MEED_OK;
    options.steps = load->steps + 2;
    options.batch_tokens = (int32_t)rows;
    options.dtype = load->dtype;
    MEED_TRY_OUT(time_step_gemms(machine, load, rows, &gemm_s));
    MEED_TRY_OUT(meed_bench_adapter(&checkpoint->config, 8, 1, &start));
    MEED_TRY_OUT(
        meed_trainer_create(machine->be, checkpoint, start, data, data_count, &options, &trainer));
    for (int i = 0; i < load->steps + 2; i++) {
        MEED_TRY_OUT(meed_trainer_step(trainer, &report));
        double expected = log((double)checkpoint->config.vocab);
        if (i == 0 && !(fabs(report.loss - expected) < 0.25 * expected)) {
            st = MEED_FAIL(MEED_NUMERIC, "first loss %g is far from ln V = %g", report.loss,
                           expected);
            goto out;
        }
        if (i >= 2) {
            rates[i - 2] = (double)report.tokens / report.seconds;
        }
    }
    qsort(rates, (size_t)load->steps, sizeof rates[0], compare);
    print_rows(machine, load, rates[load->steps / 2], (double)rows, gemm_s, report.launches);
out:
    meed_trainer_destroy(trainer);
    meed_adapter_destroy(start);
    return st;
}

static enum meed_status bench_load(const struct meed_bench_machine *machine,
                                   const struct workload *load)
{
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_sequence *data = NULL;
    struct meed_arena arena;
    int32_t count = 8 * load->sequences;
    enum meed_status st = MEED_OK;
    meed_arena_init_growing(&arena, "bench data", 64 << 20);
    MEED_TRY_OUT(meed_bench_checkpoint(load->name, &load->config, &checkpoint));
    MEED_TRY_OUT(meed_bench_sequences(load->config.vocab, load->length, count, &arena, &data));
    MEED_TRY_OUT(measure(machine, load, checkpoint, data, count));
out:
    meed_checkpoint_close(checkpoint);
    meed_arena_clear(&arena);
    return st;
}

static enum meed_status both_dtypes(const struct meed_bench_machine *machine, const char *name,
                                    struct meed_model_config config, int steps)
{
    struct workload load = {name, "", config, MEED_DTYPE_F32, 129, 8, steps, 0};
    MEED_TRY(bench_load(machine, &load));
    load.dtype = MEED_DTYPE_BF16;
    return bench_load(machine, &load);
}

/* Layers of Llama-3-8B's shape under its whole head; on the host one of them, 512 tokens. */
static enum meed_status bench_8b(const struct meed_bench_machine *machine)
{
    struct workload load = {"llama-3-8b-4-layers",
                            ", 16k tokens",
                            meed_bench_llama_8b(),
                            MEED_DTYPE_BF16,
                            2049,
                            8,
                            5,
                            1.45};
    load.config.layers = 4;
    if (machine->be->host_memory) {
        load = (struct workload){
            "llama-3-8b-1-layer", ", 512 tokens", load.config, MEED_DTYPE_BF16, 129, 4, 1, 0};
        load.config.layers = 1;
        /* the file and its copy while it is made, then the network and what the library packs */
        double needed = 10 * meed_bench_weights(&load.config);
        double free_bytes = meed_bench_free_memory();
        if (free_bytes > 0 && free_bytes < needed) {
            printf("  %s: skipped, needs %.1f GB of memory, %.1f are free\n", load.name,
                   1e-9 * needed, 1e-9 * free_bytes);
            return MEED_OK;
        }
    }
    return bench_load(machine, &load);
}

enum meed_status meed_suite_train(struct meed_bench_machine *machine)
{
    bool host = machine->be->host_memory;
    meed_bench_heading("train", "one LoRA step, 8 x 128 tokens, rank 8, all projections");
    MEED_TRY(meed_bench_machine_probe(machine, "train"));
    MEED_TRY(both_dtypes(machine, "tiny", meed_bench_tiny(), machine->smoke ? 1 : 21));
    if (machine->smoke) {
        return MEED_OK;
    }
    MEED_TRY(both_dtypes(machine, "smollm2-135m", meed_bench_smollm(), host ? 3 : 21));
    if (!host) {
        const struct workload loads[] = {
            {"qwen2.5-0.5b", ", 16k tokens", meed_bench_qwen(), MEED_DTYPE_BF16, 2049, 8, 5, 2.2},
            {"llama-3.2-1b", ", 16k tokens", meed_bench_llama_1b(), MEED_DTYPE_BF16, 2049, 8, 5,
             1.7},
        };
        MEED_TRY(both_dtypes(machine, "qwen2.5-0.5b", meed_bench_qwen(), 21));
        MEED_TRY(both_dtypes(machine, "llama-3.2-1b", meed_bench_llama_1b(), 21));
        MEED_TRY(bench_load(machine, &loads[0]));
        MEED_TRY(bench_load(machine, &loads[1]));
    }
    return bench_8b(machine);
}
