/* Picking from rows of logits against their definitions.
 *
 * Goal: top_k is a sort; a sampled id is the one that temperature, top-k and top-p define, whatever
 * the row's length, dtype and neighbours; ties go to the lower id; what has no distribution is −1.
 * Method: a stable sort; a float64 walk over the kept set at the very number that the stream gives,
 * where an id may differ only if a change of the number or of p by 4e-6 (fp32 exponentials of
 * arguments up to 28, rounded twice) explains it.
 */
#define PARITY_SAMPLE(name) PARITY_RUN(name)
#include "tests/support/parity.h"

#include <math.h>
#include <string.h>

enum { ROWS = 5, MAX_VOCAB = 5003 };
static const int32_t vocabs[] = {1, 2, 7, 100, 1000, MAX_VOCAB};

struct ranked {
    double value;
    int32_t id;
};

static int by_value(const void *left, const void *right)
{
    const struct ranked *x = left;
    const struct ranked *y = right;
    int order = (x->value < y->value) - (x->value > y->value);
    return order ? order : x->id - y->id;
}

static void sort_row(const double *row, int32_t vocab, struct ranked *items)
{
    for (int32_t i = 0; i < vocab; i++) {
        items[i] = (struct ranked){row[i], i};
    }
    qsort(items, (size_t)vocab, sizeof *items, by_value);
}

/* Normal values, rounded to `step` so that some are equal (0: as they come). */
static struct meed_mat make_logits(struct parity *p, int32_t vocab, enum meed_dtype dtype,
                                   double spread, double step)
{
    struct meed_mat logits = parity_mat(p, ROWS, vocab, 3, dtype, 1.0);
    for (int m = 0; m < ROWS; m++) {
        float wide[MAX_VOCAB];
        meed_bf16 narrow[MAX_VOCAB];
        for (int32_t i = 0; i < vocab; i++) {
            double value = spread * meed_rng_normal(&p->rng);
            wide[i] = (float)(step > 0 ? step * round(value / step) : value);
            narrow[i] = meed_bf16_from_f32(wide[i]);
        }
        const void *from = dtype == MEED_DTYPE_F32 ? (const void *)wide : narrow;
        size_t bytes = (size_t)vocab * meed_dtype_bytes(dtype);
        assert_int_equal(p->be->copy_to(p->be, meed_mat_rows(logits, m, 1).data, from, bytes),
                         MEED_OK);
    }
    return logits;
}

static void fetch(struct parity *p, void *host, const void *device, size_t bytes)
{
    assert_int_equal(p->be->copy_from(p->be, host, device, bytes), MEED_OK);
    assert_int_equal(p->be->sync(p->be), MEED_OK);
}

static void top_k_shape(struct parity *p, int32_t vocab, int32_t k, enum meed_dtype dtype)
{
    struct meed_mat logits = make_logits(p, vocab, dtype, 3.0, k % 2 ? 0.25 : 0);
    const double *values = parity_values(p, logits);
    float got_values[ROWS * MEED_TOP_K_MAX];
    int32_t got_ids[ROWS * MEED_TOP_K_MAX] = {0};
    float *values_dev = parity_floats(p, ROWS * k, 1.0);
    int32_t *ids_dev = parity_ints(p, got_ids, ROWS * k);
    p->be->top_k(p->be, logits, k, values_dev, ids_dev);
    fetch(p, got_values, values_dev, (size_t)(ROWS * k) * sizeof *got_values);
    fetch(p, got_ids, ids_dev, (size_t)(ROWS * k) * sizeof *got_ids);
    for (int m = 0; m < ROWS; m++) {
        struct ranked items[MAX_VOCAB];
        sort_row(values + (int64_t)m * vocab, vocab, items);
        for (int32_t i = 0; i < k; i++) {
            assert_int_equal(got_ids[m * k + i], items[i].id);
            assert_true((double)got_values[m * k + i] == items[i].value);
        }
    }
    parity_record_bytes(p, got_ids, (size_t)(ROWS * k) * sizeof *got_ids);
    parity_release(p);
}

static void parity_case_top_k(struct parity *p)
{
    static const int32_t ks[] = {1, 2, 5, 64, 1000};
    for (size_t v = 0; v < MEED_COUNT(vocabs) - (parity_small ? 1 : 0); v++) {
        for (size_t i = 0; i < MEED_COUNT(ks); i++) {
            if (ks[i] <= vocabs[v] && (!parity_small || ks[i] < 1000)) {
                top_k_shape(p, vocabs[v], ks[i], MEED_DTYPE_F32);
                top_k_shape(p, vocabs[v], ks[i], MEED_DTYPE_BF16);
            }
        }
    }
}

/* The id by definition: sort, cut by rank, walk the kept in the order of ids. */
static int32_t by_definition(struct meed_sample_rule rule, const double *row, int32_t vocab,
                             double unit)
{
    static struct ranked items[MAX_VOCAB];
    static bool kept[MAX_VOCAB];
    int32_t count = rule.top_k > 0 ? MEED_MIN(rule.top_k, vocab) : vocab;
    double total = 0, mass = 0;
    sort_row(row, vocab, items);
    double best = items[0].value;
    memset(kept, 0, sizeof kept);
    for (int32_t i = 0; i < count; i++) {
        items[i].value = exp((items[i].value - best) / (double)rule.temperature);
        items[i].value *= items[i].value >= 0x1p-40;
        total += items[i].value;
    }
    int32_t last = 0;
    for (int32_t i = 0; i < count && (i == 0 || mass < (double)rule.top_p * total); i++) {
        kept[items[i].id] = true;
        mass += items[i].value;
    }
    double walked = 0;
    for (int32_t i = 0; i < vocab; i++) {
        if (kept[i]) {
            walked += exp((row[i] - best) / (double)rule.temperature);
            last = i;
            if (walked > unit * mass) {
                break;
            }
        }
    }
    return last;
}

static void check_pick(struct meed_sample_rule rule, const double *row, int32_t vocab, double unit,
                       int32_t got)
{
    static const double nudges[] = {0, -4e-6, 4e-6};
    assert_in_range(got, 0, vocab - 1);
    for (int i = 0; i < 9; i++) {
        struct meed_sample_rule near = rule;
        near.top_p = rule.top_p < 1.0f ? rule.top_p * (float)(1 + nudges[i / 3]) : 1.0f;
        if (by_definition(near, row, vocab, unit + nudges[i % 3]) == got) {
            return;
        }
    }
    fail_msg("vocabulary %d, top_k %d, top_p %g: drew %d, not %d", vocab, rule.top_k,
             (double)rule.top_p, got, by_definition(rule, row, vocab, unit));
}

static void sample_shape(struct parity *p, int32_t vocab, struct meed_sample_rule rule,
                         enum meed_dtype dtype, double step)
{
    struct meed_mat logits = make_logits(p, vocab, dtype, 3.0, step);
    const double *values = parity_values(p, logits);
    uint64_t keys[ROWS];
    int32_t draws[ROWS], got[ROWS] = {-7, -7, -7, -7, -7}, alone[1];
    for (int m = 0; m < ROWS; m++) {
        keys[m] = meed_rng_u64(&p->rng);
        draws[m] = (int32_t)meed_rng_below(&p->rng, 1000);
    }
    struct meed_mat keys_dev = parity_mat(p, ROWS, 2, 0, MEED_DTYPE_F32, 1.0);
    int32_t *draws_dev = parity_ints(p, draws, ROWS);
    int32_t *ids_dev = parity_ints(p, got, ROWS);
    assert_int_equal(p->be->copy_to(p->be, keys_dev.data, keys, sizeof keys), MEED_OK);
    p->be->sample(p->be, logits, rule, keys_dev.data, draws_dev, ids_dev);
    fetch(p, got, ids_dev, sizeof got);
    for (int m = 0; m < ROWS; m++) {
        struct meed_rng rng = {keys[m], (uint64_t)draws[m]};
        const double *row = values + (int64_t)m * vocab;
        if (rule.temperature > 0.0f) {
            check_pick(rule, row, vocab, meed_rng_unit(&rng), got[m]);
        } else {
            struct ranked items[MAX_VOCAB];
            sort_row(row, vocab, items);
            assert_int_equal(got[m], items[0].id);
        }
    }
    const uint64_t *third = (const uint64_t *)keys_dev.data + 2;
    p->be->sample(p->be, meed_mat_rows(logits, 2, 1), rule, third, draws_dev + 2, ids_dev);
    fetch(p, alone, ids_dev, sizeof alone);
    assert_int_equal(alone[0], got[2]);
    parity_record_bytes(p, got, sizeof got);
    parity_release(p);
}

/* Rows without a distribution, equal logits, and −inf. */
static void sample_edges(struct parity *p)
{
    static const float rows[ROWS][4] = {{0, NAN, 1, 2},
                                        {INFINITY, 0, 1, 2},
                                        {-INFINITY, -INFINITY, -INFINITY, -INFINITY},
                                        {-INFINITY, 5, -INFINITY, 5},
                                        {-0.0f, 0.0f, -1, 0.0f}};
    struct meed_mat logits = parity_mat(p, ROWS, 4, 0, MEED_DTYPE_F32, 1.0);
    uint64_t keys[ROWS] = {1, 2, 3, 4, 5};
    struct meed_mat keys_dev = parity_mat(p, ROWS, 2, 0, MEED_DTYPE_F32, 1.0);
    int32_t got[ROWS] = {0};
    int32_t *ids_dev = parity_ints(p, got, ROWS);
    assert_int_equal(p->be->copy_to(p->be, logits.data, rows, sizeof rows), MEED_OK);
    assert_int_equal(p->be->copy_to(p->be, keys_dev.data, keys, sizeof keys), MEED_OK);
    int seen[4] = {0};
    for (int32_t draw = 0; draw < 40; draw++) {
        const int32_t draws[ROWS] = {draw, draw, draw, draw, draw};
        struct meed_sample_rule rule = {draw == 0 ? 0.0f : 1.0f, draw % 2 ? 0.9f : 1.0f, draw % 3};
        p->be->sample(p->be, logits, rule, keys_dev.data, parity_ints(p, draws, ROWS), ids_dev);
        fetch(p, got, ids_dev, sizeof got);
        assert_true(got[0] == -1 && got[1] == -1 && got[2] == -1);
        assert_true(got[3] == 1 || got[3] == 3);
        assert_true(got[4] != 2 || rule.top_k == 0);
        assert_true(rule.top_k != 1 || (got[3] == 1 && got[4] == 0)); /* ties: the lower id */
        assert_true(rule.top_k != 2 || got[4] <= 1);
        seen[got[3]]++;
    }
    assert_true(seen[1] > 10 && seen[3] > 2);
    parity_release(p);
}

static void parity_case_sample(struct parity *p)
{
    static const struct meed_sample_rule rules[] = {
        {0, 1, 0},    {1, 1, 0},      {0.7f, 1, 5},  {1, 0.9f, 0},
        {2, 0.5f, 0}, {1, 0.95f, 40}, {1, 1e-6f, 0}, {0.01f, 1, 0},
    };
    int turns = parity_small ? 1 : 8;
    for (size_t v = 0; v < MEED_COUNT(vocabs) - (parity_small ? 1 : 0); v++) {
        for (size_t i = 0; i < MEED_COUNT(rules); i++) {
            for (int turn = 0; turn < turns; turn++) {
                sample_shape(p, vocabs[v], rules[i], MEED_DTYPE_F32, turn % 2 ? 0.5 : 0);
                sample_shape(p, vocabs[v], rules[i], MEED_DTYPE_BF16, 0);
            }
        }
    }
    sample_edges(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define MEED_OP(name, text) PARITY_FAMILY_##name(name)
#include "kernels/ops.def"
#undef MEED_OP
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
