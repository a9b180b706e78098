/* Training shared by ranks, in the engine; also on the emulated device, over the tests' own NCCL.
 *
 * Goal: after eight steps, one of them a resume by another number of ranks, the checkpoint has the
 * bytes of one rank's, with everything on that could tell ranks apart: dropout, the proximal term,
 * a last round with fewer micro-batches than ranks. A replica that differs is found, and impossible
 * groups are refused on every rank. Method: ranks are forked processes, which say by their exit
 * code whether all was well; each opens its own backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/rng.h"
#include "engine/trainer_internal.h"
#include "tests/support/command.h"
#include "tests/support/ranks.h"

enum { SEQUENCES = 7, TOKENS = 9, STEPS = 8 };
static char scratch[SCRATCH_BYTES];
static int32_t ids[SEQUENCES * TOKENS];
static uint8_t scored[SEQUENCES * TOKENS];
static struct meed_sequence sequences[SEQUENCES];

static int setup(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(3, "ranks", 0);
    scratch_make(scratch);
    for (int i = 0; i < SEQUENCES * TOKENS; i++) {
        ids[i] = (int32_t)meed_rng_below(&rng, 50);
        scored[i] = i % TOKENS > 2;
    }
    for (int i = 0; i < SEQUENCES; i++) {
        sequences[i] = (struct meed_sequence){
            .ids = ids + i * TOKENS, .scored = scored + i * TOKENS, .length = TOKENS - i % 3};
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static struct meed_train_options options_of(int32_t accumulation)
{
    struct meed_train_options options = meed_train_defaults();
    options.steps = STEPS;
    options.batch_tokens = 17;
    options.accumulation = accumulation;
    options.lr = 1e-2f;
    options.prox_mu = 0.1f;
    options.dropout = 0.1f;
    options.dtype = MEED_DTYPE_BF16;
    return options;
}

/* What a rank holds. */
struct replica {
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_adapter *start;
    struct meed_trainer *trainer;
    struct meed_collective *collective;
};

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %d, line %d: %s\n", rank, __LINE__, meed_last_error());          \
            return __LINE__ % 200 + 1;                                                             \
        }                                                                                          \
    } while (0)

static int replica_open(struct replica *made, int32_t rank, int32_t world, const char *key,
                        int32_t accumulation)
{
    struct meed_train_options options = options_of(accumulation);
    struct meed_lora_config lora = {.rank = 4, .alpha = 8.0f, .targets = MEED_PROJ_ALL};
    struct meed_rendezvous place = {.rank = rank,
                                    .world = world,
                                    .folder = scratch,
                                    .key = key,
                                    .one_machine = true,
                                    .patience_ms = 60000};
    CHECK(meed_backend_open_cpu(NULL, NULL, &made->be) == MEED_OK);
    CHECK(meed_checkpoint_open(MEED_SOURCE_DIR "/tests/golden/qwen2", &made->checkpoint) ==
          MEED_OK);
    CHECK(meed_adapter_create(&made->checkpoint->config, &lora, &made->start) == MEED_OK);
    meed_adapter_init(made->start, 5);
    CHECK(meed_trainer_create(made->be, made->checkpoint, made->start, sequences, SEQUENCES,
                              &options, &made->trainer) == MEED_OK);
    CHECK(meed_collective_open(&place, &made->collective) == MEED_OK);
    return 0;
}

static void replica_close(struct replica *replica)
{
    meed_collective_close(replica->collective);
    meed_trainer_destroy(replica->trainer);
    meed_adapter_destroy(replica->start);
    meed_checkpoint_close(replica->checkpoint);
    meed_backend_close(replica->be);
}

/* ---- the same bytes ----------------------------------------------------------------------------
 */

/* Key: FROM-TO, two checkpoints; trains from the first ("none": from the start) to the second, a
 * half of the steps. */
static int train_half(int32_t rank, int32_t world, const char *key)
{
    char from[MEED_PATH_BYTES], to[MEED_PATH_BYTES], names[64];
    struct replica replica = {.be = NULL};
    struct meed_train_report report;
    snprintf(names, sizeof names, "%s", key);
    char *second = strchr(names, '-');
    *second++ = '\0';
    CHECK(meed_file_join(scratch, names, from, sizeof from) == MEED_OK);
    CHECK(meed_file_join(scratch, second, to, sizeof to) == MEED_OK);
    int line = replica_open(&replica, rank, world, key, 4);
    if (line != 0) {
        return line;
    }
    if (strcmp(names, "none") != 0) {
        CHECK(meed_trainer_resume(replica.trainer, from) == MEED_OK);
    }
    CHECK(meed_trainer_share(replica.trainer, replica.collective) == MEED_OK);
    if (replica.be->comm && world > 1) {
        CHECK(meed_collective_on_devices(replica.collective));
    }
    for (int i = 0; i < STEPS / 2; i++) {
        CHECK(meed_trainer_step(replica.trainer, &report) == MEED_OK);
    }
    CHECK(meed_trainer_save(replica.trainer, to) == MEED_OK);
    CHECK(access(to, F_OK) == 0);
    CHECK(meed_trainer_export(replica.trainer, replica.start) == MEED_OK);
    replica_close(&replica);
    return 0;
}

static void check_same_files(const char *x_name, const char *y_name)
{
    char path[MEED_PATH_BYTES];
    size_t x_size = 0, y_size = 0;
    snprintf(path, sizeof path, "%s/%s", scratch, x_name);
    char *x = scratch_read(path, &x_size);
    snprintf(path, sizeof path, "%s/%s", scratch, y_name);
    char *y = scratch_read(path, &y_size);
    assert_int_equal(x_size, y_size);
    assert_memory_equal(x, y, x_size);
    free(x);
    free(y);
}

static void ranks_train_what_one_trains(void **state)
{
    (void)state;
    ranks_run(train_half, 1, "none-half1", 120);
    ranks_run(train_half, 1, "half1-whole1", 120);
    ranks_run(train_half, 2, "none-half2", 120);
    check_same_files("half1", "half2");
    ranks_run(train_half, 3, "half2-whole3", 120);
    check_same_files("whole1", "whole3");
    ranks_run(train_half, 4, "half1-whole4", 120);
    check_same_files("whole1", "whole4");
}

/* ---- what is refused ----------------------------------------------------------------------------
 */

static int too_few_micro_batches(int32_t rank, int32_t world, const char *key)
{
    struct replica replica = {.be = NULL};
    int line = replica_open(&replica, rank, world, key, 2);
    if (line != 0) {
        return line;
    }
    CHECK(meed_trainer_share(replica.trainer, replica.collective) == MEED_ARG);
    CHECK(strstr(meed_last_error(), "raise --accumulation to 3"));
    replica_close(&replica);
    return 0;
}

static int unlike_options(int32_t rank, int32_t world, const char *key)
{
    struct replica replica = {.be = NULL};
    int line = replica_open(&replica, rank, world, key, 2 + 2 * rank);
    if (line != 0) {
        return line;
    }
    CHECK(meed_trainer_share(replica.trainer, replica.collective) == MEED_VERSION);
    CHECK(strstr(meed_last_error(), "rank 1 has not rank 0's model, start, data or options"));
    replica_close(&replica);
    return 0;
}

/* One rank has taken a step alone. */
static int unlike_progress(int32_t rank, int32_t world, const char *key)
{
    struct replica replica = {.be = NULL};
    struct meed_train_report report;
    int line = replica_open(&replica, rank, world, key, 2);
    if (line != 0) {
        return line;
    }
    if (rank == 1) {
        CHECK(meed_trainer_step(replica.trainer, &report) == MEED_OK);
    }
    CHECK(meed_trainer_share(replica.trainer, replica.collective) == MEED_VERSION);
    CHECK(strstr(meed_last_error(), "rank 1 has not rank 0's checkpoint"));
    replica_close(&replica);
    return 0;
}

/* One rank's masters are touched between two steps. */
static int unlike_masters(int32_t rank, int32_t world, const char *key)
{
    struct replica replica = {.be = NULL};
    struct meed_train_report report;
    char path[MEED_PATH_BYTES];
    float value = 0.5f;
    int line = replica_open(&replica, rank, world, key, 2);
    if (line != 0) {
        return line;
    }
    CHECK(meed_trainer_share(replica.trainer, replica.collective) == MEED_OK);
    CHECK(meed_trainer_step(replica.trainer, &report) == MEED_OK);
    if (rank == 1) {
        CHECK(replica.be->copy_to(replica.be, replica.trainer->masters_dev + 3, &value,
                                  sizeof value) == MEED_OK);
    }
    CHECK(meed_file_join(scratch, "unlike", path, sizeof path) == MEED_OK);
    CHECK(meed_trainer_save(replica.trainer, path) == MEED_INTEGRITY);
    CHECK(strstr(meed_last_error(), "after step 1 rank 1 has not rank 0's weights"));
    CHECK(access(path, F_OK) != 0);
    CHECK(meed_trainer_export(replica.trainer, replica.start) == MEED_INTEGRITY);
    replica_close(&replica);
    return 0;
}

static void what_is_unlike_is_refused(void **state)
{
    (void)state;
    ranks_run(too_few_micro_batches, 3, "few", 120);
    ranks_run(unlike_options, 2, "options", 120);
    ranks_run(unlike_progress, 2, "progress", 120);
    ranks_run(unlike_masters, 2, "masters", 120);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_train_what_one_trains),
        cmocka_unit_test(what_is_unlike_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
