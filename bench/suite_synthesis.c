/* Tokens a second of a group of synthetic candidates: prompts behind one set of demonstrations.
 *
 * What meed_synthesis_write asks of the generator in a phase: sixteen prompts of 256 tokens that
 * share the first 224, 64 new tokens each, greedy, bf16. All of it is timed, feeding and writing,
 * on an empty cache; demonstrations are fed once.
 * The peer (bench/peers) is Hugging Face's generate on the same batch, one median against another.
 * First, the reply to one prompt alone must be the one it gets in the group.
 */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "bench/harness.h"
#include "bench/shapes.h"
#include "client/synthesis.h"
#include "engine/generate.h"

enum { GROUP = MEED_SYNTHESIS_GROUP, NEW_TOKENS = 64, TURNS = 3, SHARED = 224, PROMPT = 256 };

struct group {
    struct meed_generator *generator;
    struct meed_prompt prompts[GROUP];
    int32_t replies[GROUP][NEW_TOKENS];
};

static enum meed_status write_replies(struct group *group, int32_t count, double *seconds)
{
    struct meed_generate_options options = meed_generate_defaults();
    struct meed_reply replies[GROUP];
    struct meed_arena arena;
    options.max_new_tokens = NEW_TOKENS;
    meed_arena_init_growing(&arena, "bench replies", 16 << 20);
    meed_generator_forget(group->generator);
    int64_t start_ns = meed_clock_monotonic_ns();
    enum meed_status st = meed_generator_run(group->generator, group->prompts, count, &options,
                                             NULL, &arena, replies);
    *seconds = meed_clock_seconds_since(start_ns);
    for (int32_t i = 0; st == MEED_OK && i < count; i++) {
        MEED_ASSERT(replies[i].length == NEW_TOKENS); /* nothing stops it */
        memcpy(group->replies[i], replies[i].ids, (size_t)NEW_TOKENS * sizeof *replies[i].ids);
    }
    meed_arena_clear(&arena);
    return st;
}

static enum meed_status time_group(const struct meed_bench_machine *machine, const char *name,
                                   struct group *group)
{
    int32_t alone[NEW_TOKENS] = {0};
    double taken[TURNS] = {0}, seconds = 0;
    int turns = machine->smoke ? 1 : TURNS;
    char row[96];
    MEED_TRY(write_replies(group, 1, &seconds));
    memcpy(alone, group->replies[0], sizeof alone);
    for (int turn = 0; turn < turns; turn++) {
        MEED_TRY(write_replies(group, GROUP, &taken[turn]));
    }
    if (memcmp(alone, group->replies[0], sizeof alone) != 0) {
        return MEED_FAIL(MEED_NUMERIC, "a prompt's reply is another one in its group");
    }
    snprintf(row, sizeof row, "%s bf16, %d × (%d + %d), %d new", name, GROUP, SHARED,
             PROMPT - SHARED, NEW_TOKENS);
    meed_bench_row("synthesis", row, GROUP * NEW_TOKENS / meed_bench_median(taken, turns),
                   "tokens/s", 0, '>');
    return MEED_OK;
}

static enum meed_status measure(const struct meed_bench_machine *machine, const char *name,
                                const struct meed_model_config *config)
{
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_adapter *adapter = NULL;
    struct meed_net *net = NULL;
    struct meed_sequence *sequences = NULL;
    struct meed_arena arena;
    struct group group = {.generator = NULL};
    enum meed_status st = MEED_OK;
    meed_arena_init_growing(&arena, "bench prompts", 16 << 20);
    MEED_TRY_OUT(meed_bench_checkpoint(name, config, &checkpoint));
    MEED_TRY_OUT(meed_bench_adapter(config, 8, 1, &adapter));
    const struct meed_adapter *adapters[] = {adapter};
    const struct meed_net_options net_options = {.dtype = MEED_DTYPE_BF16,
                                                 .max_rows = PROMPT,
                                                 .max_sequences = 1,
                                                 .adapters = adapters,
                                                 .adapter_count = 1};
    struct meed_generate_options options = meed_generate_defaults();
    options.slots = GROUP;
    options.max_rows = PROMPT;
    MEED_TRY_OUT(meed_net_create(machine->be, checkpoint, &net_options, &net));
    MEED_TRY_OUT(meed_generator_create(net, &options, &group.generator));
    MEED_TRY_OUT(meed_bench_sequences(config->vocab, PROMPT, GROUP, &arena, &sequences));
    for (int32_t i = 0; i < GROUP; i++) {
        memcpy(sequences[i].ids, sequences[0].ids, SHARED * sizeof *sequences[i].ids);
        group.prompts[i] = (struct meed_prompt){sequences[i].ids, PROMPT, 0};
    }
    MEED_TRY_OUT(time_group(machine, name, &group));
out:
    meed_generator_destroy(group.generator);
    meed_net_destroy(net);
    meed_adapter_destroy(adapter);
    meed_checkpoint_close(checkpoint);
    meed_arena_clear(&arena);
    return st;
}

enum meed_status meed_suite_synthesis(struct meed_bench_machine *machine)
{
    struct meed_model_config tiny = meed_bench_tiny(), smollm = meed_bench_smollm();
    meed_bench_heading("synthesis", "prompts × (shared + own tokens), greedy, fed and written");
    MEED_TRY(measure(machine, "tiny", &tiny));
    return machine->smoke ? MEED_OK : measure(machine, "smollm2-135m", &smollm);
}
