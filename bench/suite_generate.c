/* Tokens a second of batched greedy decoding, against the memory roofline, and what a shared prefix
 * saves.
 *
 * A decoding step reads every weight and every sequence's keys and values once, so its floor is
 * (weights + cache) / copy rate, whatever the batch. Prompts are fed by a first run; the second run
 * finds them held, feeds one row of each and is nothing but decoding: that is timed. One sequence,
 * sixteen short ones, sixteen long ones; bf16, one adapter of rank 8. First, the reply to one
 * prompt alone must be the one it gets among sixteen.
 *
 * The prefix: sixteen prompts behind one demonstration of 224 tokens against sixteen that differ in
 * their first token, one new token each.
 */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "bench/harness.h"
#include "bench/shapes.h"
#include "engine/generate.h"

enum { SLOTS = 16, NEW_TOKENS = 64, SHORT = 32, LONG = 1024, PREFIX = 224, PROMPT = 256 };

struct run {
    const struct meed_bench_machine *machine;
    const struct meed_model_config *config;
    const char *name;
    struct meed_net *net;
    struct meed_sequence *sequences; /* [SLOTS + 1], LONG tokens each */
    struct meed_generator *generator;
    struct meed_prompt prompts[SLOTS];
    int32_t first_reply[NEW_TOKENS]; /* of prompt 0, alone */
};

static enum meed_status open_generator(struct run *run)
{
    struct meed_generate_options options = meed_generate_defaults();
    options.slots = SLOTS;
    options.capacity = LONG + NEW_TOKENS;
    meed_generator_destroy(run->generator);
    run->generator = NULL;
    return meed_generator_create(run->net, &options, &run->generator);
}

/* One run over the first prompts; a reply of prompt 0 is kept where it is alone, else compared. */
static enum meed_status generate(struct run *run, int32_t count, int32_t new_tokens,
                                 double *seconds)
{
    struct meed_generate_options options = meed_generate_defaults();
    struct meed_reply replies[SLOTS];
    struct meed_arena arena;
    options.max_new_tokens = new_tokens;
    meed_arena_init_growing(&arena, "bench replies", 16 << 20);
    int64_t start = meed_clock_monotonic_ns();
    enum meed_status st =
        meed_generator_run(run->generator, run->prompts, count, &options, NULL, &arena, replies);
    *seconds = meed_clock_seconds_since(start);
    size_t bytes = (size_t)new_tokens * sizeof(int32_t);
    if (st == MEED_OK && count == 1) {
        memcpy(run->first_reply, replies[0].ids, bytes);
    } else if (st == MEED_OK && memcmp(run->first_reply, replies[0].ids, bytes) != 0) {
        st = MEED_FAIL(MEED_NUMERIC, "a prompt's reply is another one in a batch");
    }
    meed_arena_clear(&arena);
    return st;
}

/* Bytes of one step: bf16 weights, and the cache of every sequence at its mean length. */
static double step_bytes(const struct meed_model_config *config, int32_t count, int32_t length)
{
    double cached = 2.0 * config->layers * config->kv_heads * (double)config->head_dim * count *
                    (length + NEW_TOKENS / 2.0);
    return 2 * (meed_bench_weights(config) + cached);
}

static void set_prompts(struct run *run, int32_t length)
{
    for (int i = 0; i < SLOTS; i++) {
        run->prompts[i] = (struct meed_prompt){run->sequences[i].ids, length, 0};
    }
}

static enum meed_status measure_decode(struct run *run, int32_t count, int32_t length)
{
    double seconds = 0, best = 0;
    char row[96];
    set_prompts(run, length);
    MEED_TRY(open_generator(run));
    MEED_TRY(generate(run, 1, NEW_TOKENS, &seconds));
    MEED_TRY(generate(run, count, 1, &seconds));
    for (int turn = 0; turn < (run->machine->smoke ? 1 : 5); turn++) {
        MEED_TRY(generate(run, count, NEW_TOKENS, &seconds));
        double rate = (double)count * NEW_TOKENS / seconds;
        best = rate > best ? rate : best;
    }
    double floor_s = step_bytes(run->config, count, length) / run->machine->copy_bytes;
    snprintf(row, sizeof row, "%s bf16, %d × %d", run->name, (int)count, (int)length);
    meed_bench_row("generate", row, best, "tokens/s", 0, '>');
    snprintf(row, sizeof row, "%s bf16, %d × %d, of the memory roofline", run->name, (int)count,
             (int)length);
    meed_bench_row("generate", row, 100 * best / count * floor_s, "%", 60, '>');
    return MEED_OK;
}

/* Prompts of PROMPT tokens that share the first PREFIX, and the same with first tokens of their
 * own. */
static enum meed_status measure_prefix(struct run *run)
{
    double shared = 0, apart = 0;
    char row[96];
    for (int i = 0; i < SLOTS; i++) {
        memcpy(run->sequences[i].ids, run->sequences[SLOTS].ids, PREFIX * sizeof(int32_t));
    }
    set_prompts(run, PROMPT);
    MEED_TRY(open_generator(run));
    MEED_TRY(generate(run, 1, 1, &shared));
    meed_generator_forget(run->generator);
    MEED_TRY(generate(run, SLOTS, 1, &shared));
    meed_generator_forget(run->generator);
    for (int i = 1; i < SLOTS; i++) {
        run->sequences[i].ids[0] = i;
    }
    run->sequences[0].ids[0] = run->sequences[SLOTS].ids[0] == 0 ? SLOTS : 0;
    MEED_TRY(generate(run, 1, 1, &apart));
    meed_generator_forget(run->generator);
    MEED_TRY(generate(run, SLOTS, 1, &apart));
    snprintf(row, sizeof row, "%s bf16, 16 prompts with 224 of 256 tokens in common", run->name);
    meed_bench_row("generate", row, apart / shared, "× faster", 0, '>');
    return MEED_OK;
}

static enum meed_status measure(const struct meed_bench_machine *machine, const char *name,
                                const struct meed_model_config *config)
{
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_adapter *adapter = NULL;
    struct meed_arena arena;
    struct run run = {.machine = machine, .config = config, .name = name};
    enum meed_status st = MEED_OK;
    meed_arena_init_growing(&arena, "bench prompts", 16 << 20);
    MEED_TRY_OUT(meed_bench_checkpoint(name, config, &checkpoint));
    MEED_TRY_OUT(meed_bench_adapter(config, 8, 1, &adapter));
    const struct meed_adapter *stack[] = {adapter};
    struct meed_net_options options = {.dtype = MEED_DTYPE_BF16,
                                       .max_rows = 128,
                                       .max_sequences = SLOTS,
                                       .adapters = stack,
                                       .adapter_count = 1};
    MEED_TRY_OUT(meed_net_create(machine->be, checkpoint, &options, &run.net));
    MEED_TRY_OUT(meed_bench_sequences(config->vocab, LONG, SLOTS + 1, &arena, &run.sequences));
    MEED_TRY_OUT(measure_decode(&run, 1, SHORT));
    MEED_TRY_OUT(measure_decode(&run, SLOTS, SHORT));
    MEED_TRY_OUT(machine->smoke ? MEED_OK : measure_decode(&run, SLOTS, LONG - NEW_TOKENS));
    MEED_TRY_OUT(measure_prefix(&run));
out:
    meed_generator_destroy(run.generator);
    meed_net_destroy(run.net);
    meed_adapter_destroy(adapter);
    meed_checkpoint_close(checkpoint);
    meed_arena_clear(&arena);
    return st;
}

enum meed_status meed_suite_generate(struct meed_bench_machine *machine)
{
    struct meed_model_config tiny = meed_bench_tiny(), smollm = meed_bench_smollm();
    meed_bench_heading("generate", "sequences × prompt tokens, 64 new tokens each, greedy");
    MEED_TRY(meed_bench_machine_probe(machine, "generate"));
    MEED_TRY(measure(machine, "tiny", &tiny));
    if (!machine->smoke) {
        MEED_TRY(measure(machine, "smollm2-135m", &smollm));
    }
    if (!machine->be->host_memory) {
        struct meed_model_config llama = meed_bench_llama_1b();
        MEED_TRY(measure(machine, "llama-3.2-1b", &llama));
    }
    return MEED_OK;
}
