/* See partition.h. Every kind ends in one array, owner[dialogue], from which the parts are read. */
#include "evaluation/partition.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/rng.h"

const char *const meed_partition_names[MEED_PARTITION_COUNT] = {
    [MEED_PARTITION_IID] = "iid",           [MEED_PARTITION_DIRICHLET] = "dirichlet",
    [MEED_PARTITION_DOMAIN] = "domain",     [MEED_PARTITION_AMOUNT] = "amount",
    [MEED_PARTITION_FEW_SHOT] = "few_shot",
};

enum meed_status meed_partition_parse(const char *name, enum meed_partition_kind *kind)
{
    for (int i = 0; i < MEED_PARTITION_COUNT; i++) {
        if (strcmp(name, meed_partition_names[i]) == 0) {
            *kind = (enum meed_partition_kind)i;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG,
                     "no partition \"%.32s\"; there are iid, dirichlet, domain, amount, few_shot",
                     name);
}

struct dealer {
    const struct meed_partition_options *options;
    const int32_t *label;
    int64_t count;
    int32_t labels, clients;
    int64_t *order;  /* [count] shuffled */
    int32_t *owner;  /* [count] −1: not dealt */
    int64_t *holds;  /* [clients] */
    double *weights; /* [clients] */
};

static void give(struct dealer *dealer, int64_t dialogue, int32_t client)
{
    dealer->owner[dialogue] = client;
    dealer->holds[client]++;
}

/* The dialogues with this label (−1: all) in shuffled order, cut at the weights' cumulated shares:
 * sizes add up exactly, each within one of its share. */
static void cut(struct dealer *dealer, int32_t label, const double *weights)
{
    double total = 0.0, before = 0.0;
    int64_t size = 0, at = 0;
    int32_t client = 0, last = 0;
    for (int32_t i = 0; i < dealer->clients; i++) {
        total += weights[i];
        last = weights[i] > 0.0 ? i : last;
    }
    for (int64_t i = 0; i < dealer->count; i++) {
        size += label < 0 || dealer->label[i] == label;
    }
    for (int64_t i = 0; i < dealer->count && total > 0.0; i++) {
        int64_t dialogue = dealer->order[i];
        if (label >= 0 && dealer->label[dialogue] != label) {
            continue;
        }
        while (client < last &&
               (double)at + 0.5 >= (before + weights[client]) / total * (double)size) {
            before += weights[client++];
        }
        give(dealer, dialogue, client);
        at++;
    }
}

/* Gamma(shape) by Marsaglia and Tsang 2000, small shapes by the power of a uniform. */
static double draw_gamma(struct meed_rng *rng, double shape)
{
    double boost = 1.0;
    if (shape < 1.0) {
        boost = pow(1.0 - meed_rng_unit(rng), 1.0 / shape);
        shape += 1.0;
    }
    double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        double x = meed_rng_normal(rng), v = 1.0 + c * x;
        v = v * v * v;
        if (v > 0.0 && log(1.0 - meed_rng_unit(rng)) < 0.5 * x * x + d - d * v + d * log(v)) {
            return d * v * boost;
        }
    }
}

static void deal_dirichlet(struct dealer *dealer)
{
    for (int32_t label = 0; label < dealer->labels; label++) {
        struct meed_rng rng = meed_rng_stream(dealer->options->seed, "dirichlet", (uint64_t)label);
        double sum = 0.0;
        for (int32_t i = 0; i < dealer->clients; i++) {
            dealer->weights[i] = draw_gamma(&rng, dealer->options->alpha);
            sum += dealer->weights[i];
        }
        if (!(sum > 0.0)) { /* α so small that every draw underflowed: one client has it all */
            dealer->weights[meed_rng_below(&rng, (uint64_t)dealer->clients)] = 1.0;
        }
        cut(dealer, label, dealer->weights);
    }
}

static void deal_domain(struct dealer *dealer)
{
    for (int32_t label = 0; label < dealer->labels; label++) {
        for (int32_t i = 0; i < dealer->clients; i++) {
            dealer->weights[i] = i % dealer->labels == label ? 1.0 : 0.0;
        }
        cut(dealer, label, dealer->weights);
    }
}

static void deal_amount(struct dealer *dealer)
{
    for (int32_t i = 0; i < dealer->clients; i++) {
        dealer->weights[i] = dealer->options->weights
                                 ? dealer->options->weights[i]
                                 : pow((double)i + 1.0, -dealer->options->alpha);
    }
    cut(dealer, -1, dealer->weights);
}

static void deal_evenly(struct dealer *dealer)
{
    for (int32_t i = 0; i < dealer->clients; i++) {
        dealer->weights[i] = 1.0;
    }
    cut(dealer, -1, dealer->weights);
}

/* Nobody trains on nothing: the first dialogue of the largest client goes to each empty one. */
static void fill_empty(struct dealer *dealer)
{
    for (int32_t client = 0; client < dealer->clients; client++) {
        int32_t largest = 0;
        for (int32_t i = 0; i < dealer->clients; i++) {
            largest = dealer->holds[i] > dealer->holds[largest] ? i : largest;
        }
        for (int64_t i = 0; dealer->holds[client] == 0 && i < dealer->count; i++) {
            if (dealer->owner[dealer->order[i]] == largest) {
                dealer->holds[largest]--;
                give(dealer, dealer->order[i], client);
            }
        }
    }
}

static enum meed_status read_parts(const struct dealer *dealer, struct meed_arena *arena,
                                   struct meed_partition_part *parts)
{
    int64_t most = dealer->options->per_client > 0 ? dealer->options->per_client : INT64_MAX;
    for (int32_t i = 0; i < dealer->clients; i++) {
        void *block = NULL;
        size_t size = (size_t)MEED_MIN(dealer->holds[i], most);
        MEED_TRY(meed_arena_alloc_array(arena, size, sizeof *parts->members, &block));
        parts[i] = (struct meed_partition_part){block, 0};
    }
    for (int64_t i = 0; i < dealer->count; i++) {
        int32_t client = dealer->owner[dealer->order[i]];
        if (client >= 0 && parts[client].count < most) {
            parts[client].members[parts[client].count++] = dealer->order[i];
        }
    }
    return MEED_OK;
}

static enum meed_status prepare(struct dealer *dealer, struct meed_arena *arena)
{
    void *order = NULL, *owner = NULL, *holds = NULL, *weights = NULL;
    size_t count = (size_t)dealer->count, clients = (size_t)dealer->clients;
    MEED_TRY(meed_arena_alloc_array(arena, count, sizeof *dealer->order, &order));
    MEED_TRY(meed_arena_alloc_array(arena, count, sizeof *dealer->owner, &owner));
    MEED_TRY(meed_arena_alloc_array(arena, clients, sizeof *dealer->holds, &holds));
    MEED_TRY(meed_arena_alloc_array(arena, clients, sizeof *dealer->weights, &weights));
    dealer->order = order;
    dealer->owner = owner;
    dealer->holds = holds;
    dealer->weights = weights;
    for (int64_t i = 0; i < dealer->count; i++) {
        dealer->order[i] = i;
        dealer->owner[i] = -1;
    }
    struct meed_rng rng = meed_rng_stream(dealer->options->seed, "partition", 0);
    meed_rng_shuffle(&rng, dealer->order, dealer->count);
    return MEED_OK;
}

enum meed_status meed_partition_deal(const struct meed_partition_options *options,
                                     const int32_t *label, int64_t count, int32_t labels,
                                     int32_t clients, struct meed_arena *arena,
                                     struct meed_partition_part *parts)
{
    bool few = options->kind == MEED_PARTITION_FEW_SHOT;
    int64_t needed = few ? options->per_client * clients : clients;
    if (few && options->per_client < 1) {
        return MEED_FAIL(MEED_ARG, "few_shot needs the number of dialogues a client");
    }
    if (count < needed) {
        return MEED_FAIL(MEED_ARG, "%lld dialogues for %d clients that need %lld; add data",
                         (long long)count, clients, (long long)needed);
    }
    struct dealer dealer = {options, label, count, labels, clients, NULL, NULL, NULL, NULL};
    MEED_TRY(prepare(&dealer, arena));
    switch (options->kind) {
    case MEED_PARTITION_DIRICHLET:
        deal_dirichlet(&dealer);
        break;
    case MEED_PARTITION_DOMAIN:
        deal_domain(&dealer);
        break;
    case MEED_PARTITION_AMOUNT:
        deal_amount(&dealer);
        break;
    default:
        deal_evenly(&dealer);
        break;
    }
    fill_empty(&dealer);
    return read_parts(&dealer, arena, parts);
}
