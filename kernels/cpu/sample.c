/* Picking from rows of logits: the k largest, and one id drawn by temperature, top-k and top-p.
 *
 * A rank is one integer that orders a row completely: the logit's bits, made monotone, above the
 * complement of its id. The k-th largest rank and the rank at which a mass is reached are found by
 * radix, eight bits at a time from the top: histogram, choose the bucket in which the cut lies, go
 * on with its members. Weights are integers, so masses add up in any order to the same sum
 * (backend.h). A row is one task; the pool takes rows.
 */
#include "kernels/cpu/isa.h"

#include <math.h>
#include "base/rng.h"
#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/cpu/vmath.h"

enum { ID_BITS = 24, RANK_BITS = 32 + ID_BITS, DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS };

struct item {
    uint64_t rank;
    uint64_t weight;
};

static uint64_t rank_of(float value, int64_t id)
{
    union {
        float number;
        uint32_t bits;
    } u = {value + 0.0f}; /* −0 ranks as 0 */
    uint32_t key = u.bits ^ (u.bits >> 31 ? 0xFFFFFFFFu : 0x80000000u);
    return (uint64_t)key << ID_BITS | (uint64_t)(MEED_VOCAB_MAX - 1 - id);
}
static int32_t id_of(uint64_t rank)
{
    return MEED_VOCAB_MAX - 1 - (int32_t)(rank & (MEED_VOCAB_MAX - 1));
}

/* The largest rank such that the items from it up are `count`, or weigh `mass`, whichever comes
 * first; the lowest if neither does. Orders items anew; *kept is what they weigh. */
static uint64_t find_cut(struct item *items, int64_t n, uint64_t count, uint64_t mass,
                         uint64_t *kept)
{
    uint64_t counts[DIGITS], masses[DIGITS];
    uint64_t above = 0, mass_above = 0, prefix = 0;
    for (int shift = RANK_BITS - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        memset(counts, 0, sizeof counts);
        memset(masses, 0, sizeof masses);
        for (int64_t i = 0; i < n; i++) {
            uint64_t digit = items[i].rank >> shift & (DIGITS - 1);
            counts[digit]++;
            masses[digit] += items[i].weight;
        }
        int digit = DIGITS - 1;
        int lowest = digit;
        for (; digit >= 0; digit--) {
            if (counts[digit] > 0) {
                lowest = digit;
                if (above + counts[digit] >= count || mass_above + masses[digit] >= mass) {
                    break;
                }
                above += counts[digit];
                mass_above += masses[digit];
            }
        }
        if (digit < 0) { /* everything is kept: step back into the lowest bucket */
            digit = lowest;
            above -= counts[digit];
            mass_above -= masses[digit];
        }
        prefix = prefix << DIGIT_BITS | (uint64_t)digit;
        int64_t members = 0;
        for (int64_t i = 0; i < n; i++) {
            if ((int)(items[i].rank >> shift & (DIGITS - 1)) == digit) {
                items[members++] = items[i];
            }
        }
        n = members;
        if (n == 1) {
            *kept = mass_above + items[0].weight;
            return items[0].rank;
        }
    }
    MEED_ASSERT(!"ranks are distinct");
    return prefix;
}

/* --- top_k ------------------------------------------------------------------------------------ */

struct top_job {
    struct meed_mat logits;
    int32_t k;
    float *values;
    int32_t *ids;
};

static void rows_top(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct top_job *job = user;
    int64_t vocab = job->logits.cols;
    struct item *items = meed_cpu_scratch_get(MEED_SCRATCH_ROWS, (size_t)vocab * sizeof *items);
    for (int64_t m = begin; m < end; m++) {
        int64_t at = m * job->logits.stride;
        float *values = job->values + m * job->k;
        int32_t *ids = job->ids + m * job->k;
        uint64_t kept, picked[MEED_TOP_K_MAX];
        for (int64_t i = 0; i < vocab; i++) {
            float value = elem_get(job->logits.data, at + i, job->logits.dtype);
            items[i] = (struct item){rank_of(value, i), 0};
        }
        uint64_t cut = find_cut(items, vocab, (uint64_t)job->k, UINT64_MAX, &kept);
        int64_t count = 0;
        for (int64_t i = 0; i < vocab; i++) {
            uint64_t rank = rank_of(elem_get(job->logits.data, at + i, job->logits.dtype), i);
            if (rank >= cut) {
                picked[count++] = rank;
            }
        }
        for (int64_t i = 0; i < count; i++) {
            int64_t place = 0;
            for (int64_t j = 0; j < count; j++) {
                place += picked[j] > picked[i];
            }
            ids[place] = id_of(picked[i]);
            values[place] = elem_get(job->logits.data, at + ids[place], job->logits.dtype);
        }
    }
}

void MEED_TWIN(top_k)(const struct meed_backend *be, struct meed_mat logits, int32_t k,
                      float *values, int32_t *ids)
{
    struct top_job job = {logits, k, values, ids};
    MEED_ASSERT(k >= 1 && k <= MEED_TOP_K_MAX && k <= logits.cols);
    MEED_ASSERT(logits.cols <= MEED_VOCAB_MAX);
    meed_pool_for(be->pool, logits.rows, 1, rows_top, &job);
}

/* --- sample ----------------------------------------------------------------------------------- */

struct sample_job {
    struct meed_mat logits;
    struct meed_sample_rule rule;
    const uint64_t *keys;
    const int32_t *draws;
    int32_t *ids;
};

/* The first of the largest, or −1 as backend.h says. */
static int32_t find_best(const float *row, int64_t count)
{
    vf tops = vf_set1(-__builtin_inff());
    vi strange = {0};
    int64_t i = 0;
    for (; i + VL <= count; i += VL) {
        vf values = vf_load(row + i);
        strange |= (vi)(values != values) | (vi)(values == __builtin_inff());
        tops = vf_max(tops, values);
    }
    float top = vf_peak(tops);
    bool bad = vf_sum((vf)(strange & (vi)vf_set1(1.0f))) > 0.0f;
    for (; i < count; i++) {
        bad |= isnan(row[i]) || row[i] == __builtin_inff();
        top = row[i] > top ? row[i] : top;
    }
    if (bad || top == -__builtin_inff()) {
        return -1;
    }
    int32_t best = 0;
    while (row[best] != top) {
        best++;
    }
    return best;
}

/* Integer weights of a row (backend.h), and their sum. */
static uint64_t weigh(const float *row, int64_t count, float best, float temperature,
                      uint64_t *weights)
{
    float inverse = 1.0f / temperature;
    uint64_t total = 0;
    for (int64_t i = 0; i < count; i += VL) {
        int64_t lanes = MEED_MIN(VL, count - i);
        vf values = vf_get_n(row, i, MEED_DTYPE_F32, lanes);
        vf scaled = vf_exp((values - best) * inverse) * 0x1p40f;
        for (int64_t j = 0; j < lanes; j++) {
            weights[i + j] = (uint64_t)scaled[j];
            total += weights[i + j];
        }
    }
    return total;
}

/* The cut of the rule's kept set, and what the set weighs. */
static uint64_t cut_of(const struct meed_sample_rule *rule, const float *row,
                       const uint64_t *weights, int64_t vocab, uint64_t *total)
{
    struct item *items = meed_cpu_scratch_get(MEED_SCRATCH_ROWS, (size_t)vocab * sizeof *items);
    double top_p = (double)rule->top_p;
    uint64_t cut = 0;
    if (rule->top_k > 0 && rule->top_k < vocab) {
        for (int64_t i = 0; i < vocab; i++) {
            items[i] = (struct item){rank_of(row[i], i), weights[i]};
        }
        cut = find_cut(items, vocab, (uint64_t)rule->top_k, UINT64_MAX, total);
    }
    if (top_p < 1.0) {
        uint64_t mass = (uint64_t)ceil(top_p * (double)*total);
        /* Tokens this light cannot be in the set: all of them together weigh less than 1 − p. */
        double least = 0.5 * (1.0 - top_p) * (double)*total / (double)vocab;
        int64_t n = 0;
        for (int64_t i = 0; i < vocab; i++) {
            uint64_t rank = rank_of(row[i], i);
            if (rank >= cut && (double)weights[i] >= least) {
                items[n++] = (struct item){rank, weights[i]};
            }
        }
        cut = find_cut(items, n, UINT64_MAX, MEED_MAX(mass, 1), total);
    }
    return cut;
}

static void rows_sample(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct sample_job *job = user;
    int64_t vocab = job->logits.cols;
    float *row = meed_cpu_scratch_floats(MEED_SCRATCH_TILE, (size_t)vocab);
    uint64_t *weights = meed_cpu_scratch_get(MEED_SCRATCH_PANEL, (size_t)vocab * sizeof *weights);
    for (int64_t m = begin; m < end; m++) {
        vf_unpack_row(job->logits.data, m * job->logits.stride, job->logits.dtype, vocab, row);
        int32_t best = find_best(row, vocab);
        job->ids[m] = best;
        if (best < 0 || job->rule.temperature == 0.0f) {
            continue;
        }
        uint64_t total = weigh(row, vocab, row[best], job->rule.temperature, weights);
        uint64_t cut = cut_of(&job->rule, row, weights, vocab, &total);
        uint32_t words[4];
        meed_rng_block(job->keys[m], (uint64_t)job->draws[m], words);
        uint64_t unit = (uint64_t)words[1] << 32 | words[0];
        uint64_t left = (uint64_t)((unsigned __int128)unit * total >> 64);
        int64_t i = 0;
        while (left >= weights[i] || (cut > 0 && rank_of(row[i], i) < cut)) {
            left -= cut > 0 && rank_of(row[i], i) < cut ? 0 : weights[i];
            i++;
        }
        job->ids[m] = (int32_t)i;
    }
}

void MEED_TWIN(sample)(const struct meed_backend *be, struct meed_mat logits,
                       struct meed_sample_rule rule, const uint64_t *keys, const int32_t *draws,
                       int32_t *ids)
{
    struct sample_job job = {logits, rule, keys, draws, ids};
    MEED_ASSERT(logits.cols >= 1 && logits.cols <= MEED_VOCAB_MAX);
    MEED_ASSERT(rule.temperature >= 0.0f && rule.top_p > 0.0f && rule.top_p <= 1.0f);
    meed_pool_for(be->pool, logits.rows, 1, rows_sample, &job);
}
