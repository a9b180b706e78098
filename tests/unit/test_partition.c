/* Partitioners: every dialogue dealt exactly once, sizes as promised, seeds decide everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "evaluation/partition.h"

enum { POOL = 997, LABELS = 5, CLIENTS = 23 };

struct dealt {
    struct meed_arena arena;
    int32_t label[POOL];
    struct meed_partition_part parts[CLIENTS];
};

static void deal(const struct meed_partition_options *options, struct dealt *dealt)
{
    meed_arena_init_growing(&dealt->arena, "test", 1 << 24);
    for (int32_t i = 0; i < POOL; i++) {
        dealt->label[i] = i % 7 % LABELS;
    }
    assert_int_equal(meed_partition_deal(options, dealt->label, POOL, LABELS, CLIENTS,
                                         &dealt->arena, dealt->parts),
                     MEED_OK);
}

/* How often each dialogue is held. */
static void count_owners(const struct dealt *dealt, int owners[POOL])
{
    memset(owners, 0, POOL * sizeof *owners);
    for (int c = 0; c < CLIENTS; c++) {
        for (int64_t i = 0; i < dealt->parts[c].count; i++) {
            owners[dealt->parts[c].members[i]]++;
        }
    }
}

/* Share of a client's dialogues that carry its most frequent label, mean over clients. */
static double concentration(const struct dealt *dealt)
{
    double sum = 0.0;
    for (int c = 0; c < CLIENTS; c++) {
        int64_t of[LABELS] = {0}, most = 0;
        for (int64_t i = 0; i < dealt->parts[c].count; i++) {
            int64_t n = ++of[dealt->label[dealt->parts[c].members[i]]];
            most = n > most ? n : most;
        }
        sum += (double)most / (double)dealt->parts[c].count / CLIENTS;
    }
    return sum;
}

/* Every kind that deals everything does, once each, and leaves nobody without. */
static void partition_conserves_dialogues(void **state)
{
    (void)state;
    for (int kind = 0; kind < MEED_PARTITION_FEW_SHOT; kind++) {
        for (uint64_t seed = 1; seed < 6; seed++) {
            struct meed_partition_options options = {
                .kind = (enum meed_partition_kind)kind, .alpha = 0.05 * (double)seed, .seed = seed};
            struct dealt dealt;
            int owners[POOL];
            deal(&options, &dealt);
            count_owners(&dealt, owners);
            for (int i = 0; i < POOL; i++) {
                assert_int_equal(owners[i], 1);
            }
            for (int c = 0; c < CLIENTS; c++) {
                assert_true(dealt.parts[c].count > 0);
            }
            meed_arena_clear(&dealt.arena);
        }
    }
}

static void partition_iid_is_even(void **state)
{
    (void)state;
    struct meed_partition_options options = {.kind = MEED_PARTITION_IID, .seed = 3};
    struct dealt dealt;
    deal(&options, &dealt);
    for (int c = 0; c < CLIENTS; c++) {
        assert_in_range(dealt.parts[c].count, POOL / CLIENTS, POOL / CLIENTS + 1);
    }
    meed_arena_clear(&dealt.arena);
}

/* Small α concentrates labels, large α spreads them; by domain a client has one label only. */
static void partition_dirichlet_concentrates(void **state)
{
    (void)state;
    struct meed_partition_options options = {.kind = MEED_PARTITION_DIRICHLET, .seed = 4};
    struct dealt dealt;
    double found[3];
    const double alpha[] = {0.05, 1.0, 100.0};
    for (int i = 0; i < 3; i++) {
        options.alpha = alpha[i];
        deal(&options, &dealt);
        found[i] = concentration(&dealt);
        meed_arena_clear(&dealt.arena);
    }
    assert_true(found[0] > 0.8 && found[0] > found[1] + 0.1 && found[1] > found[2] + 0.1);
    options.kind = MEED_PARTITION_DOMAIN;
    deal(&options, &dealt);
    assert_true(fabs(concentration(&dealt) - 1.0) < 1e-12);
    meed_arena_clear(&dealt.arena);
}

/* Sizes are the weights' shares within one dialogue; the power law falls. */
static void partition_amount_follows_weights(void **state)
{
    (void)state;
    double weights[CLIENTS], sum = 0.0;
    for (int c = 0; c < CLIENTS; c++) {
        weights[c] = 1.0 + c % 4;
        sum += weights[c];
    }
    struct meed_partition_options options = {
        .kind = MEED_PARTITION_AMOUNT, .weights = weights, .seed = 5};
    struct dealt dealt;
    deal(&options, &dealt);
    for (int c = 0; c < CLIENTS; c++) {
        assert_true(fabs((double)dealt.parts[c].count - POOL * weights[c] / sum) <= 1.0);
    }
    meed_arena_clear(&dealt.arena);
    options.weights = NULL;
    options.alpha = 1.0;
    deal(&options, &dealt);
    assert_true(dealt.parts[0].count > 10 * dealt.parts[CLIENTS - 1].count);
    meed_arena_clear(&dealt.arena);
}

static void partition_few_shot_deals_exactly(void **state)
{
    (void)state;
    struct meed_partition_options options = {
        .kind = MEED_PARTITION_FEW_SHOT, .per_client = 4, .seed = 6};
    struct dealt dealt;
    int owners[POOL], held = 0;
    deal(&options, &dealt);
    count_owners(&dealt, owners);
    for (int i = 0; i < POOL; i++) {
        assert_in_range(owners[i], 0, 1);
        held += owners[i];
    }
    assert_int_equal(held, 4 * CLIENTS);
    meed_arena_clear(&dealt.arena);
    options.per_client = 1 + POOL / CLIENTS;
    meed_arena_init_growing(&dealt.arena, "test", 1 << 20);
    assert_int_equal(meed_partition_deal(&options, dealt.label, POOL, LABELS, CLIENTS, &dealt.arena,
                                         dealt.parts),
                     MEED_ARG);
    meed_arena_clear(&dealt.arena);
}

static void partition_depends_on_the_seed_alone(void **state)
{
    (void)state;
    struct meed_partition_options options = {
        .kind = MEED_PARTITION_DIRICHLET, .alpha = 0.5, .seed = 9};
    struct dealt x, y;
    deal(&options, &x);
    deal(&options, &y);
    for (int c = 0; c < CLIENTS; c++) {
        assert_int_equal(x.parts[c].count, y.parts[c].count);
        assert_memory_equal(x.parts[c].members, y.parts[c].members,
                            (size_t)x.parts[c].count * sizeof *x.parts[c].members);
    }
    meed_arena_clear(&y.arena);
    options.seed = 10;
    deal(&options, &y);
    bool same = true;
    for (int c = 0; c < CLIENTS; c++) {
        same = same && x.parts[c].count == y.parts[c].count;
    }
    assert_false(same);
    meed_arena_clear(&x.arena);
    meed_arena_clear(&y.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(partition_conserves_dialogues),
        cmocka_unit_test(partition_iid_is_even),
        cmocka_unit_test(partition_dirichlet_concentrates),
        cmocka_unit_test(partition_amount_follows_weights),
        cmocka_unit_test(partition_few_shot_deals_exactly),
        cmocka_unit_test(partition_depends_on_the_seed_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
