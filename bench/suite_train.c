/* Tokens a second of one LoRA step: 8 sequences of 128, rank 8 on all seven projections.
 *
 * Random weights and tokens; every token carries loss, so the LM head runs on every row (the peers
 * have no choice). The loss of the first step is checked against ln V, where random weights must
 * put it. Shapes: the embedded model, and SmolLM2-135M with its vocabulary of 49,152.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "bench/harness.h"
#include "bench/shapes.h"
#include "engine/trainer.h"

enum { LENGTH = 129, SEQUENCES = 64, MAX_STEPS = 64 };

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

/* FLOPs of a step's GEMMs a token: forward and dx of every frozen linear and of the head. */
static double flops_a_token(const struct meed_model_config *config)
{
    double weights = (double)config->vocab * config->hidden;
    for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
        weights += (double)config->layers *
                   (double)meed_proj_outputs(config, (enum meed_proj)proj) *
                   (double)meed_proj_inputs(config, (enum meed_proj)proj);
    }
    return 4 * weights;
}

static enum meed_status measure(const struct meed_bench_machine *machine, const char *name,
                                const struct meed_checkpoint *checkpoint,
                                const struct meed_sequence *data, enum meed_dtype dtype, int steps)
{
    struct meed_train_options options = meed_train_defaults();
    struct meed_adapter *start = NULL;
    struct meed_trainer *trainer = NULL;
    struct meed_train_report report = {0};
    double rates[MAX_STEPS];
    enum meed_status st = MEED_OK;
    options.steps = steps + 2;
    options.batch_tokens = 8 * (LENGTH - 1);
    options.dtype = dtype;
    MEED_TRY_OUT(meed_bench_adapter(&checkpoint->config, 1, &start));
    MEED_TRY_OUT(
        meed_trainer_create(machine->be, checkpoint, start, data, SEQUENCES, &options, &trainer));
    for (int i = 0; i < steps + 2; i++) {
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
    qsort(rates, (size_t)steps, sizeof rates[0], compare);
    char row[96];
    snprintf(row, sizeof row, "%s %s", name, meed_dtype_name(dtype));
    meed_bench_row("train", row, rates[steps / 2], "tokens/s", 0, '>');
    snprintf(row, sizeof row, "%s %s, of the GEMM ceiling", name, meed_dtype_name(dtype));
    meed_bench_row("train", row,
                   100 * rates[steps / 2] * flops_a_token(&checkpoint->config) /
                       machine->gemm_flops[dtype],
                   "%", 0, '>');
    if (report.launches > 0) {
        snprintf(row, sizeof row, "%s %s, launches in graphs", name, meed_dtype_name(dtype));
        meed_bench_row("train", row, (double)report.launches, "a step", 0, '<');
    }
out:
    meed_trainer_destroy(trainer);
    meed_adapter_destroy(start);
    return st;
}

static enum meed_status both_dtypes(const struct meed_bench_machine *machine, const char *name,
                                    const struct meed_model_config *config, int steps)
{
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_sequence *data = NULL;
    struct meed_arena arena;
    enum meed_status st = MEED_OK;
    meed_arena_init_growing(&arena, "bench data", 64 << 20);
    MEED_TRY_OUT(meed_bench_checkpoint(name, config, &checkpoint));
    MEED_TRY_OUT(meed_bench_sequences(config->vocab, LENGTH, SEQUENCES, &arena, &data));
    MEED_TRY_OUT(measure(machine, name, checkpoint, data, MEED_DTYPE_F32, steps));
    MEED_TRY_OUT(measure(machine, name, checkpoint, data, MEED_DTYPE_BF16, steps));
out:
    meed_checkpoint_close(checkpoint);
    meed_arena_clear(&arena);
    return st;
}

enum meed_status meed_suite_train(struct meed_bench_machine *machine)
{
    bool host = machine->be->host_memory;
    struct meed_model_config tiny = meed_bench_tiny();
    struct meed_model_config smollm = meed_bench_smollm();
    meed_bench_heading("train", "one LoRA step, 8 x 128 tokens, rank 8, all projections");
    MEED_TRY(meed_bench_machine_probe(machine, "train"));
    MEED_TRY(both_dtypes(machine, "tiny", &tiny, 21));
    MEED_TRY(both_dtypes(machine, "smollm2-135m", &smollm, host ? 3 : 21));
    if (!host) {
        struct meed_model_config qwen = meed_bench_qwen();
        struct meed_model_config llama = meed_bench_llama_1b();
        MEED_TRY(both_dtypes(machine, "qwen2.5-0.5b", &qwen, 21));
        MEED_TRY(both_dtypes(machine, "llama-3.2-1b", &llama, 21));
    }
    return MEED_OK;
}
