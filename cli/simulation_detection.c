/* See simulation_detection.h. */
#include "cli/simulation_detection.h"

#include <math.h>
#include <string.h>
#include "base/arena.h"
#include "cli/simulation_result.h"
#include "report/roc.h"

#define DETECTION_MAX_BYTES ((size_t)1 << 32)

enum { SCORE, COMBINED, SCORES };
static const char *const score_names[SCORES] = {"score", "combined"};
static const char *const area_names[SCORES] = {"auroc_score", "auroc_combined"};

struct update {
    const char *attack; /* borrowed from the documents; "none" */
    size_t round_idx;
    double scores[SCORES]; /* NaN where it has none */
    bool excluded;
};

struct pool {
    struct meed_arena arena;
    struct update *updates; /* [count] */
    size_t count, rounds;
    double *picked; /* [count], scratch */
    bool *bad;
};

static bool is_kind(const char *attack, const char *kind)
{
    return strcmp(attack, kind) == 0;
}

static bool is_honest(const char *attack)
{
    return is_kind(attack, meed_attack_infos[MEED_ATTACK_NONE].name);
}

static const char *attack_of(const json_t *cell, size_t client)
{
    const json_t *truth = json_array_get(json_object_get(cell, "clients"), client);
    const char *attack = json_string_value(json_object_get(truth, "attack"));
    return attack ? attack : meed_attack_infos[MEED_ATTACK_NONE].name;
}

/* ---- gathering ------------------------------------------------------------------------------- */

static void take_round(struct pool *pool, const json_t *cell, size_t round_idx)
{
    const json_t *rounds = json_object_get(cell, "rounds");
    const json_t *seats = json_object_get(json_array_get(rounds, round_idx), "clients");
    for (size_t i = 0; i < json_array_size(seats); i++) {
        const json_t *seat = json_array_get(seats, i);
        const char *state = json_string_value(json_object_get(seat, "state"));
        if (!state || strcmp(state, "absent") == 0) {
            continue;
        }
        struct update *update = &pool->updates[pool->count++];
        *update = (struct update){.attack = attack_of(cell, i),
                                  .round_idx = round_idx,
                                  .excluded = strcmp(state, "excluded") == 0};
        for (int s = 0; s < SCORES; s++) {
            const json_t *score = json_object_get(seat, score_names[s]);
            update->scores[s] = json_is_number(score) ? json_number_value(score) : NAN;
        }
    }
}

static enum meed_status gather(struct pool *pool, const json_t *cells)
{
    size_t most = 0;
    void *block = NULL;
    for (size_t c = 0; c < json_array_size(cells); c++) {
        const json_t *cell = json_array_get(cells, c);
        size_t rounds = json_array_size(json_object_get(cell, "rounds"));
        most += rounds * json_array_size(json_object_get(cell, "clients"));
        pool->rounds = MEED_MAX(pool->rounds, rounds);
    }
    MEED_TRY(meed_arena_alloc_array(&pool->arena, most, sizeof *pool->updates, &block));
    pool->updates = block;
    MEED_TRY(meed_arena_alloc_array(&pool->arena, most, sizeof *pool->picked, &block));
    pool->picked = block;
    MEED_TRY(meed_arena_alloc_array(&pool->arena, most, sizeof *pool->bad, &block));
    pool->bad = block;
    for (size_t c = 0; c < json_array_size(cells); c++) {
        const json_t *cell = json_array_get(cells, c);
        for (size_t r = 0; r < json_array_size(json_object_get(cell, "rounds")); r++) {
            take_round(pool, cell, r);
        }
    }
    return MEED_OK;
}

/* ---- one kind -------------------------------------------------------------------------------- */

/* The curve of a kind against the honest ones, in one round or (round_idx = rounds) in all. */
static enum meed_status trace(struct pool *pool, const char *kind, int score, size_t round_idx,
                              struct meed_roc *roc)
{
    int32_t count = 0;
    for (size_t i = 0; i < pool->count; i++) {
        const struct update *update = &pool->updates[i];
        bool bad = is_kind(update->attack, kind);
        bool there = round_idx == pool->rounds || update->round_idx == round_idx;
        if (there && (bad || is_honest(update->attack)) && !isnan(update->scores[score])) {
            pool->picked[count] = update->scores[score];
            pool->bad[count++] = bad;
        }
    }
    return meed_roc_trace(pool->picked, pool->bad, count, &pool->arena, roc);
}

/* Corners where the curve turns; those along an edge say nothing more. */
static json_t *corners_json(const struct meed_roc *roc)
{
    json_t *corners = json_array();
    const double *x = roc->false_positive, *y = roc->true_positive;
    for (int32_t i = 0; i < roc->count; i++) {
        bool inside = i > 0 && i + 1 < roc->count;
        if (inside &&
            ((x[i - 1] == x[i] && x[i] == x[i + 1]) || (y[i - 1] == y[i] && y[i] == y[i + 1]))) {
            continue;
        }
        json_array_append_new(corners, json_pack("[f, f]", x[i], y[i]));
    }
    return corners;
}

static enum meed_status put_areas(struct pool *pool, const char *kind, json_t *entry)
{
    json_t *rounds = json_array();
    double sums[SCORES] = {0.0, 0.0};
    int counts[SCORES] = {0, 0};
    json_object_set_new(entry, "rounds", rounds);
    for (size_t r = 0; r < pool->rounds; r++) {
        json_t *round = json_pack("{s:I}", "round", (json_int_t)r + 1);
        json_array_append_new(rounds, round);
        for (int s = 0; s < SCORES; s++) {
            struct meed_roc roc;
            MEED_TRY(trace(pool, kind, s, r, &roc));
            json_object_set_new(round, area_names[s], meed_simulation_number(roc.area));
            sums[s] += isnan(roc.area) ? 0.0 : roc.area;
            counts[s] += !isnan(roc.area);
        }
    }
    for (int s = 0; s < SCORES; s++) {
        json_object_set_new(entry, area_names[s],
                            meed_simulation_number(counts[s] ? sums[s] / counts[s] : NAN));
    }
    return MEED_OK;
}

static enum meed_status put_curves(struct pool *pool, const char *kind, json_t *entry)
{
    json_t *curves = json_object();
    json_object_set_new(entry, "roc", curves);
    for (int s = 0; s < SCORES; s++) {
        struct meed_roc roc;
        MEED_TRY(trace(pool, kind, s, pool->rounds, &roc));
        json_object_set_new(curves, score_names[s], corners_json(&roc));
    }
    return MEED_OK;
}

static double share_of_pay(const json_t *cells, const char *kind)
{
    double part = 0.0, all = 0.0;
    for (size_t c = 0; c < json_array_size(cells); c++) {
        const json_t *cell = json_array_get(cells, c), *clients = json_object_get(cell, "clients");
        for (size_t i = 0; i < json_array_size(clients); i++) {
            double share = json_number_value(json_object_get(json_array_get(clients, i), "share"));
            part += is_kind(attack_of(cell, i), kind) ? share : 0.0;
            all += share;
        }
    }
    return all > 0.0 ? part / all : NAN;
}

static enum meed_status append_kind(struct pool *pool, const json_t *cells, const char *kind,
                                    json_t *attacks)
{
    json_int_t updates = 0, honest = 0, excluded = 0;
    for (size_t i = 0; i < pool->count; i++) {
        bool bad = is_kind(pool->updates[i].attack, kind);
        updates += bad;
        excluded += bad && pool->updates[i].excluded;
        honest += is_honest(pool->updates[i].attack);
    }
    json_t *entry = json_pack(
        "{s:s, s:I, s:I, s:o, s:o}", "attack", kind, "updates", updates, "honest", honest,
        "excluded", meed_simulation_number(updates > 0 ? (double)excluded / (double)updates : NAN),
        "pay", meed_simulation_number(share_of_pay(cells, kind)));
    json_array_append_new(attacks, entry);
    MEED_TRY(put_areas(pool, kind, entry));
    return put_curves(pool, kind, entry);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool is_listed(const json_t *attacks, const char *kind)
{
    bool found = is_honest(kind);
    for (size_t i = 0; i < json_array_size(attacks); i++) {
        const json_t *entry = json_array_get(attacks, i);
        found = found || is_kind(json_string_value(json_object_get(entry, "attack")), kind);
    }
    return found;
}

enum meed_status meed_simulation_detection(const json_t *cells, json_t **attacks)
{
    enum meed_status st = MEED_OK;
    struct pool pool = {.count = 0};
    json_t *made = json_array();
    meed_arena_init_growing(&pool.arena, "detection", DETECTION_MAX_BYTES);
    MEED_TRY_OUT(gather(&pool, cells));
    for (size_t i = 0; i < pool.count; i++) {
        if (!is_listed(made, pool.updates[i].attack)) {
            MEED_TRY_OUT(append_kind(&pool, cells, pool.updates[i].attack, made));
        }
    }
    *attacks = made;
    made = NULL;
out:
    json_decref(made);
    meed_arena_clear(&pool.arena);
    return st;
}
