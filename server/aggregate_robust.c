/* Robust rules that choose weights: which updates svd merges, and how much of each.
 *
 *   krum       the update with the smallest sum of squared distances to its n − f − 2 nearest
 *              (Blanchard et al. 2017) takes all the weight; ties go to the first id
 *   multikrum  the m with the smallest such sums share it, as their own weights are to each other
 *   normclip   p_k · min(1, bound/‖ΔW_k‖), bound a multiple of the median of the norms that are
 *              not zero (Sun et al. 2019; a cohort of idlers would set a bound of 0)
 *   fltrust    p_k · ReLU(cos(ΔW_k, ΔW_0)) · ‖ΔW_0‖/‖ΔW_k‖, over the sum of the trusts, with the
 *              operator's own update ΔW_0 (Cao et al. 2021). Nobody trusted, or an empty ΔW_0: no
 *              weights, the round leaves the model as it was
 *
 * Distances, norms and cosines are those of ΔW, from inner products of factors in fp64
 * (adapter_product.h): a rule that looked at A and B apart could be blinded by B → BQ, A → Q⁻¹A.
 * An update without weight (excluded by the screens) is no candidate. For krum and multikrum an
 * unchanged one is none either: among few clients with different data, zero lies nearest to
 * everybody, and one idler would stop all training (seen on examples/tiny). The weight of those who
 * are no candidates stays with the global adapter.
 */
#include <math.h>
#include <stdlib.h>
#include "server/adapter_product.h"
#include "server/aggregate_parts.h"

struct candidates {
    int32_t count;
    int32_t *at;   /* [count] index in the job's clients */
    double *score; /* [count] */
    double *room;  /* [count] */
    double weight; /* Σ p */
};

static void candidates_clear(struct candidates *set)
{
    meed_heap_free(set->at);
    meed_heap_free(set->score);
    meed_heap_free(set->room);
}

static enum meed_status candidates_init(struct candidates *set,
                                        const struct meed_aggregate_weigh *job, bool moving,
                                        double *q)
{
    size_t room = (size_t)job->count + 1;
    *set = (struct candidates){.at = meed_heap_alloc(room, sizeof *set->at),
                               .score = meed_heap_alloc(room, sizeof *set->score),
                               .room = meed_heap_alloc(room, sizeof *set->room)};
    if (!set->at || !set->score || !set->room) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < job->count; i++) {
        q[i] = 0.0;
        bool still = moving && meed_adapter_equal(job->clients[i], job->global);
        if (job->p[i] > 0.0 && !still) {
            set->at[set->count++] = i;
            set->weight += job->p[i];
        }
    }
    return MEED_OK;
}

static int rising(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* ---- krum -------------------------------------------------------------------------------------
 */

/* Index of the pair (i, j), i ≤ j, in a table of all pairs row by row. */
static int64_t pair_at(const struct candidates *set, int64_t i, int64_t j)
{
    int64_t low = MEED_MIN(i, j), high = MEED_MAX(i, j);
    return low * set->count - low * (low - 1) / 2 + (high - low);
}

/* Squared distances to the nearest, added up; at least one neighbour, at most all others. */
static void krum_scores(const struct meed_adapter_pair *pairs, int32_t attackers,
                        struct candidates *set)
{
    int32_t nearest = MEED_MAX(MEED_MIN(set->count - attackers - 2, set->count - 1), 1);
    for (int32_t i = 0; i < set->count; i++) {
        int32_t found = 0;
        for (int32_t j = 0; j < set->count; j++) {
            if (j != i) {
                double square = pairs[pair_at(set, i, i)].product +
                                pairs[pair_at(set, j, j)].product -
                                2.0 * pairs[pair_at(set, i, j)].product;
                set->room[found++] = fmax(square, 0.0);
            }
        }
        qsort(set->room, (size_t)found, sizeof *set->room, rising);
        set->score[i] = 0.0;
        for (int32_t j = 0; j < MEED_MIN(nearest, found); j++) {
            set->score[i] += set->room[j];
        }
    }
}

static enum meed_status score_all(const struct meed_aggregate_weigh *job, struct candidates *set)
{
    int64_t count = (int64_t)set->count * (set->count + 1) / 2;
    struct meed_adapter_pair *pairs = meed_heap_alloc((size_t)count + 1, sizeof *pairs);
    if (!pairs) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < set->count; i++) {
        for (int32_t j = i; j < set->count; j++) {
            pairs[pair_at(set, i, j)].x = job->clients[set->at[i]];
            pairs[pair_at(set, i, j)].y = job->clients[set->at[j]];
        }
    }
    meed_adapter_products(pairs, (int32_t)count, job->options->pool);
    krum_scores(pairs, job->options->robust.attackers, set);
    meed_heap_free(pairs);
    return MEED_OK;
}

/* The `most` best by score, first ids first, share all the weight. */
static enum meed_status select_best(const struct meed_aggregate_weigh *job, int32_t most, double *q)
{
    enum meed_status st = MEED_OK;
    struct candidates set;
    MEED_TRY_OUT(candidates_init(&set, job, true, q));
    MEED_TRY_OUT(score_all(job, &set));
    if (most <= 0) {
        most = set.count - job->options->robust.attackers;
    }
    double taken = 0.0;
    for (int32_t round = 0; round < MEED_MIN(MEED_MAX(most, 1), set.count); round++) {
        int32_t best = -1;
        for (int32_t i = 0; i < set.count; i++) {
            bool open = q[set.at[i]] == 0.0;
            best = open && (best < 0 || set.score[i] < set.score[best]) ? i : best;
        }
        q[set.at[best]] = job->p[set.at[best]];
        taken += q[set.at[best]];
    }
    for (int32_t i = 0; i < job->count && taken > 0.0; i++) {
        q[i] *= set.weight / taken;
    }
out:
    candidates_clear(&set);
    return st;
}

enum meed_status meed_aggregate_weigh_krum(const struct meed_aggregate_weigh *job, double *q)
{
    return select_best(job, 1, q);
}

enum meed_status meed_aggregate_weigh_multikrum(const struct meed_aggregate_weigh *job, double *q)
{
    return select_best(job, job->options->robust.selected, q);
}

/* ---- norms and directions ---------------------------------------------------------------------
 */

/* ⟨x − global, y − global⟩ = ⟨x,y⟩ − ⟨x,g⟩ − ⟨g,y⟩ + ⟨g,g⟩: four pairs a candidate. */
static void step_pairs(const struct meed_adapter *x, const struct meed_adapter *y,
                       const struct meed_adapter *global, struct meed_adapter_pair pairs[4])
{
    pairs[0] = (struct meed_adapter_pair){.x = x, .y = y};
    pairs[1] = (struct meed_adapter_pair){.x = x, .y = global};
    pairs[2] = (struct meed_adapter_pair){.x = global, .y = y};
    pairs[3] = (struct meed_adapter_pair){.x = global, .y = global};
}

static double step_product(const struct meed_adapter_pair pairs[4])
{
    return (pairs[0].product - pairs[1].product) - (pairs[2].product - pairs[3].product);
}

/* score: ⟨ΔW_i, ΔW_other⟩, or ‖ΔW_i‖² where other is NULL; exactly 0 for what did not move. */
static enum meed_status score_steps(const struct meed_aggregate_weigh *job,
                                    const struct meed_adapter *other, struct candidates *set,
                                    double *score)
{
    struct meed_adapter_pair *pairs = meed_heap_alloc(4 * (size_t)set->count + 1, sizeof *pairs);
    if (!pairs) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < set->count; i++) {
        const struct meed_adapter *client = job->clients[set->at[i]];
        step_pairs(client, other ? other : client, job->global, pairs + 4 * (int64_t)i);
    }
    meed_adapter_products(pairs, 4 * set->count, job->options->pool);
    for (int32_t i = 0; i < set->count; i++) {
        bool still = meed_adapter_equal(job->clients[set->at[i]], job->global);
        score[i] = still ? 0.0 : step_product(pairs + 4 * (int64_t)i);
    }
    meed_heap_free(pairs);
    return MEED_OK;
}

static enum meed_status score_norms(const struct meed_aggregate_weigh *job, struct candidates *set)
{
    MEED_TRY(score_steps(job, NULL, set, set->score));
    for (int32_t i = 0; i < set->count; i++) {
        set->score[i] = sqrt(fmax(set->score[i], 0.0));
    }
    return MEED_OK;
}

static double median_of_moving(struct candidates *set)
{
    int32_t moving = 0;
    for (int32_t i = 0; i < set->count; i++) {
        if (set->score[i] > 0.0) {
            set->room[moving++] = set->score[i];
        }
    }
    qsort(set->room, (size_t)moving, sizeof *set->room, rising);
    return moving == 0 ? 0.0 : 0.5 * (set->room[(moving - 1) / 2] + set->room[moving / 2]);
}

enum meed_status meed_aggregate_weigh_normclip(const struct meed_aggregate_weigh *job, double *q)
{
    enum meed_status st = MEED_OK;
    struct candidates set;
    MEED_TRY_OUT(candidates_init(&set, job, false, q));
    MEED_TRY_OUT(score_norms(job, &set));
    double bound = job->options->robust.norm_multiple * median_of_moving(&set);
    for (int32_t i = 0; i < set.count; i++) {
        double norm = set.score[i];
        q[set.at[i]] = job->p[set.at[i]] * (norm > bound ? bound / norm : 1.0);
    }
out:
    candidates_clear(&set);
    return st;
}

/* ---- fltrust ----------------------------------------------------------------------------------
 */

static double reference_norm(const struct meed_aggregate_weigh *job)
{
    struct meed_adapter_pair pairs[4];
    const struct meed_adapter *reference = job->options->reference;
    if (meed_adapter_equal(reference, job->global)) {
        return 0.0;
    }
    step_pairs(reference, reference, job->global, pairs);
    meed_adapter_products(pairs, 4, job->options->pool);
    return sqrt(fmax(step_product(pairs), 0.0));
}

enum meed_status meed_aggregate_weigh_fltrust(const struct meed_aggregate_weigh *job, double *q)
{
    enum meed_status st = MEED_OK;
    struct candidates set;
    double own = 0.0, trusts = 0.0;
    MEED_TRY_OUT(candidates_init(&set, job, false, q));
    MEED_TRY_OUT(score_norms(job, &set));
    MEED_TRY_OUT(score_steps(job, job->options->reference, &set, set.room));
    own = reference_norm(job);
    for (int32_t i = 0; i < set.count; i++) {
        double lengths = own * set.score[i];
        double trust = lengths > 0.0 ? fmax(set.room[i] / lengths, 0.0) : 0.0;
        trusts += trust * job->p[set.at[i]];
        q[set.at[i]] = trust > 0.0 ? trust * job->p[set.at[i]] * own / set.score[i] : 0.0;
    }
    for (int32_t i = 0; i < set.count; i++) {
        q[set.at[i]] = trusts > 0.0 ? q[set.at[i]] * set.weight / trusts : 0.0;
    }
out:
    candidates_clear(&set);
    return st;
}
