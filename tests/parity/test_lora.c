/* The low-rank branch against float64: tail, packing, gradients, gates, merging.
 *
 * Goal: every formula of backend.h at ranks off the vector width, several modules in a group, gates
 * per row, dropout (the mask rebuilt here from the counter-based generator), absent outputs, and
 * the row and thread promises.
 */
#define PARITY_LORA(name) PARITY_RUN(name)
#include "tests/support/parity.h"

#include <math.h>
#include <string.h>

struct shape {
    int64_t m;
    int64_t k;
    int64_t r;
    float dropout;
};
static const struct shape shapes[] = {
    {0, 8, 8, 0.0f},     {1, 1, 1, 0.0f},      {5, 7, 3, 0.25f},     {33, 64, 8, 0.0f},
    {70, 193, 16, 0.0f}, {37, 1030, 40, 0.1f}, {300, 200, 24, 0.0f}, {3, 4104, 8, 0.0f},
    {600, 72, 80, 0.1f}, /* more rows and ranks than a device takes at a time */
};
enum { GATE_SETS = 3, RANK_MAX = 80, DROPOUT_KEY = 77 };

/* Views whose rows all begin at multiples of 16 bytes, where K allows it, or at odd places. */
static int64_t row_pad(const struct shape *s, int64_t odd)
{
    return s->k % 8 ? odd : 8;
}

/* Small enough for every mode of a checker (parity.h)? */
static bool wanted(const struct shape *s)
{
    return !parity_small || s->m * s->k < 40000;
}

/* The gates of row m: another set on every row, then the same for a hundred. */
static int32_t set_of(int64_t m)
{
    return (int32_t)((m < 150 ? m * 5 : m / 100) % GATE_SETS);
}

/* x̃: x under the mask, scaled. */
static double *dropped(struct parity *p, const double *x, const struct shape *s, uint64_t key)
{
    double *out = parity_doubles(p, s->m * s->k);
    for (int64_t e = 0; e < s->m * s->k; e++) {
        uint32_t words[4];
        meed_rng_block(key, (uint64_t)e / 4, words);
        bool keep = (double)words[e % 4] >= floor((double)s->dropout * 4294967296.0);
        out[e] = keep ? x[e] / (1.0 - (double)s->dropout) : 0.0;
    }
    return out;
}

/* c [rows, cols] += a [rows, depth]·b [depth, cols], strides by step. */
static void product(const double *a, int64_t a_row, int64_t a_col, const double *b, int64_t b_row,
                    int64_t b_col, int64_t rows, int64_t cols, int64_t depth, double *c)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k < depth; k++) {
            for (int64_t j = 0; j < cols; j++) {
                c[i * cols + j] += a[i * a_row + k * a_col] * b[k * b_row + j * b_col];
            }
        }
    }
}

static struct meed_tail tail_make(struct parity *p, const struct shape *s, enum meed_dtype dtype,
                                  bool gated)
{
    const uint64_t key = DROPOUT_KEY;
    struct meed_tail tail = {parity_mat(p, s->r, s->k, row_pad(s, 2), dtype, 1.0), NULL, NULL,
                             s->dropout, NULL};
    void *key_dev = parity_floats(p, 2, 0.0);
    assert_int_equal(p->be->copy_to(p->be, key_dev, &key, sizeof key), MEED_OK);
    tail.dropout_key = key_dev;
    int32_t sets[1024];
    for (int64_t m = 0; m < s->m; m++) {
        sets[m] = set_of(m);
    }
    if (gated) {
        tail.gates = parity_floats(p, GATE_SETS * s->r, 1.0);
        tail.gate_of_row = parity_ints(p, sets, s->m);
    }
    return tail;
}

static double gate(const double *gates, const struct shape *s, int64_t m, int64_t j)
{
    return gates ? gates[set_of(m) * s->r + j] : 1.0;
}

static void down_shape(struct parity *p, const struct shape *s, enum meed_dtype dtype, bool gated)
{
    struct meed_tail tail = tail_make(p, s, dtype, gated);
    struct meed_mat xt = parity_mat(p, s->m, s->k + s->r, row_pad(s, 1), dtype, 1.0);
    struct meed_mat again = parity_copy(p, xt);
    struct meed_mat before = parity_copy(p, xt);
    const double *x = parity_values(p, meed_mat_cols(xt, 0, s->k));
    const double *a = parity_values(p, tail.a);
    const double *gates = gated ? parity_from_floats(p, tail.gates, GATE_SETS * s->r) : NULL;
    const double *masked = s->dropout > 0.0f ? dropped(p, x, s, DROPOUT_KEY) : x;
    double *want = parity_doubles(p, s->m * s->r);
    product(masked, s->k, 1, a, 1, s->k, s->m, s->r, s->k, want);
    for (int64_t i = 0; i < s->m * s->r; i++) {
        want[i] *= gate(gates, s, i / s->r, i % s->r);
    }
    p->be->lora_down(p->be, xt, s->k, &tail);
    parity_close(p, "lora_down T", meed_mat_cols(xt, s->k, s->r), want, close_f32_sum(s->k), 1.1);
    parity_same_rows(p, "x untouched", meed_mat_cols(xt, 0, s->k), meed_mat_cols(before, 0, s->k));
    for (int64_t m = 0; m < s->m && s->dropout == 0.0f; m++) {
        struct meed_tail one = tail;
        one.gate_of_row = gated ? tail.gate_of_row + m : NULL;
        p->be->lora_down(p->be, meed_mat_rows(again, m, 1), s->k, &one);
    }
    if (s->dropout == 0.0f) {
        parity_same_rows(p, "rows alone", again, xt);
    }
    parity_release(p);
}

static void parity_case_lora_down(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        for (int dtype = 0; dtype < 2 && wanted(&shapes[i]); dtype++) {
            down_shape(p, &shapes[i], (enum meed_dtype)dtype, false);
            down_shape(p, &shapes[i], (enum meed_dtype)dtype, true);
        }
    }
    /* No tail at all is no work. */
    struct meed_tail none = {{NULL, 0, 0, 0, MEED_DTYPE_F32}, NULL, NULL, 0.0f, NULL};
    struct meed_mat x = parity_mat(p, 3, 5, 0, MEED_DTYPE_F32, 1.0);
    p->be->lora_down(p->be, x, 5, &none);
    p->be->lora_down(p->be, x, 5, NULL);
}

static void parity_case_lora_pack(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        for (int dtype = 0; dtype < 2 && wanted(&shapes[i]); dtype++) {
            const struct shape *s = &shapes[i];
            enum meed_dtype t = (enum meed_dtype)dtype;
            struct meed_mat a = parity_mat(p, s->r, s->k, 0, MEED_DTYPE_F32, 1.0);
            struct meed_mat b = parity_mat(p, s->m, s->r, 0, MEED_DTYPE_F32, 1.0);
            struct meed_mat a_rows = parity_mat(p, s->r, s->k, row_pad(s, 3), t, 1.0);
            struct meed_mat tail = parity_mat(p, s->m, s->r, s->k, t, 1.0);
            double *scaled = parity_values(p, b);
            for (int64_t j = 0; j < s->m * s->r; j++) {
                scaled[j] *= 0.375;
            }
            p->be->lora_pack(p->be, a.data, b.data, 0.375f, a_rows, tail);
            parity_close(p, "packed A", a_rows, parity_values(p, a), 0.0, 1.0001);
            parity_close(p, "packed B", tail, scaled, 1e-14, 1.0001);
            parity_release(p);
        }
    }
}

struct group {
    struct meed_lora_slot slots[2];
    int64_t n;
};

/* Two modules: ranks r1 + r2 ≤ R, rows N1 + N2 with a gap that belongs to nobody. */
static struct group group_make(struct parity *p, const struct shape *s)
{
    int64_t first = s->r / 2;
    int64_t gap = s->k % 8 ? 3 : 8;
    struct group g = {
        {{gap, 21, 0, first, 0.5f, NULL}, {gap + 24, 205, first, s->r - first, 2.0f, NULL}}, 240};
    for (int i = 0; i < 2; i++) {
        g.slots[i].db = parity_floats(p, g.slots[i].n_count * g.slots[i].r + 1, 1.0);
    }
    return g;
}

static void grad_shape(struct parity *p, const struct shape *s, enum meed_dtype dtype, bool gated)
{
    struct meed_tail tail = tail_make(p, s, dtype, gated);
    struct group g = group_make(p, s);
    struct meed_mat dy = parity_mat(p, s->m, g.n, row_pad(s, 1), dtype, 1.0);
    struct meed_mat xt = parity_mat(p, s->m, s->k + s->r, 0, dtype, 1.0);
    struct meed_mat dxt = parity_mat(p, s->m, s->k + s->r, row_pad(s, 3), dtype, 1.0);
    struct meed_mat untouched = parity_copy(p, dxt);
    struct meed_mat da = parity_mat(p, s->r, s->k, 0, MEED_DTYPE_F32, 1.0);
    const double *x = parity_values(p, meed_mat_cols(xt, 0, s->k));
    const double *masked = s->dropout > 0.0f ? dropped(p, x, s, DROPOUT_KEY) : x;
    const double *t = parity_values(p, meed_mat_cols(xt, s->k, s->r));
    const double *grad = parity_values(p, dy);
    const double *a = parity_values(p, tail.a);
    const double *gates = gated ? parity_from_floats(p, tail.gates, GATE_SETS * s->r) : NULL;
    double *u = parity_values(p, meed_mat_cols(dxt, s->k, s->r));
    for (int64_t i = 0; i < s->m * s->r; i++) {
        u[i] *= gate(gates, s, i / s->r, i % s->r);
    }
    double *want_da = parity_values(p, da);
    product(u, 1, s->r, masked, s->k, 1, s->r, s->k, s->m, want_da);
    double *low = parity_doubles(p, s->m * s->k);
    product(u, s->r, 1, a, s->k, 1, s->m, s->k, s->r, low);
    const double *low_masked = s->dropout > 0.0f ? dropped(p, low, s, DROPOUT_KEY) : low;
    double *want_dx = parity_values(p, meed_mat_cols(dxt, 0, s->k));
    for (int64_t i = 0; i < s->m * s->k; i++) {
        want_dx[i] += low_masked[i];
    }
    double *want_db[2];
    for (int i = 0; i < 2; i++) {
        struct meed_lora_slot *slot = &g.slots[i];
        int64_t count = slot->n_count * slot->r;
        double *sum = parity_doubles(p, count);
        product(grad + slot->n_begin, 1, g.n, t + slot->t_begin, s->r, 1, slot->n_count, slot->r,
                s->m, sum);
        want_db[i] = parity_from_floats(p, slot->db, count);
        for (int64_t j = 0; j < count; j++) {
            want_db[i][j] += (double)slot->scale * sum[j];
        }
    }
    p->be->lora_grad(p->be, dy, xt, s->k, &tail, g.slots, 2, da.data, true, dxt);
    parity_close(p, "lora dA", da, want_da, close_f32_sum(s->m), 1.0);
    parity_close(p, "lora dx", meed_mat_cols(dxt, 0, s->k), want_dx, close_f32_sum(s->r), 1.1);
    parity_same_rows(p, "dT untouched", meed_mat_cols(dxt, s->k, s->r),
                     meed_mat_cols(untouched, s->k, s->r));
    for (int i = 0; i < 2; i++) {
        struct meed_mat db = meed_mat_view(g.slots[i].db, 1, g.slots[i].n_count * g.slots[i].r,
                                           g.slots[i].n_count * g.slots[i].r, MEED_DTYPE_F32);
        parity_close(p, "lora dB", db, want_db[i], close_f32_sum(s->m), 1.0);
    }
    /* Without what is not wanted: nothing else changes. */
    g.slots[0].db = NULL;
    g.slots[1].db = NULL;
    p->be->lora_grad(p->be, dy, xt, s->k, &tail, g.slots, 2, NULL, false, untouched);
    p->be->lora_grad(p->be, dy, xt, s->k, &tail, g.slots, 2, NULL, true, untouched);
    parity_same_rows(p, "dx alone", untouched, dxt);
    parity_release(p);
}

static void parity_case_lora_grad(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        for (int dtype = 0; dtype < 2 && wanted(&shapes[i]); dtype++) {
            grad_shape(p, &shapes[i], (enum meed_dtype)dtype, false);
            grad_shape(p, &shapes[i], (enum meed_dtype)dtype, true);
        }
    }
}

static void parity_case_lora_gate_grad(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        for (int dtype = 0; dtype < 2 && wanted(&shapes[i]); dtype++) {
            struct shape s = shapes[i];
            s.dropout = 0.0f; /* gates are differentiated in evaluation */
            struct meed_tail tail = tail_make(p, &s, (enum meed_dtype)dtype, true);
            struct meed_mat xt = parity_mat(p, s.m, s.k + s.r, 0, (enum meed_dtype)dtype, 1.0);
            struct meed_mat dxt =
                parity_mat(p, s.m, s.k + s.r, row_pad(&s, 1), (enum meed_dtype)dtype, 1.0);
            const double *x = parity_values(p, meed_mat_cols(xt, 0, s.k));
            const double *dt = parity_values(p, meed_mat_cols(dxt, s.k, s.r));
            double *low = parity_doubles(p, s.m * s.r);
            product(x, s.k, 1, parity_values(p, tail.a), 1, s.k, s.m, s.r, s.k, low);
            double want[GATE_SETS * RANK_MAX];
            double got[GATE_SETS * RANK_MAX];
            for (int64_t j = 0; j < GATE_SETS * s.r; j++) {
                want[j] = got[j] = (double)j;
            }
            for (int64_t m = 0; m < s.m; m++) {
                for (int64_t j = 0; j < s.r; j++) {
                    want[set_of(m) * s.r + j] += dt[m * s.r + j] * low[m * s.r + j];
                }
            }
            void *device = NULL;
            size_t bytes = (size_t)(GATE_SETS * s.r) * sizeof(double);
            assert_int_equal(p->be->alloc(p->be, bytes, &device), MEED_OK);
            assert_int_equal(p->be->copy_to(p->be, device, got, bytes), MEED_OK);
            p->be->lora_gate_grad(p->be, xt, dxt, s.k, &tail, device);
            assert_int_equal(p->be->copy_from(p->be, got, device, bytes), MEED_OK);
            p->be->free(p->be, device);
            close_check("dgate", got, want, GATE_SETS * s.r, 1e-12);
            parity_record_bytes(p, got, bytes);
            parity_release(p);
        }
    }
}

static void parity_case_lora_merge(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        for (int dtype = 0; dtype < 2 && wanted(&shapes[i]); dtype++) {
            const struct shape *s = &shapes[i];
            enum meed_dtype t = (enum meed_dtype)dtype;
            struct meed_mat w = parity_mat(p, s->m, s->k, s->r, t, 1.0);
            struct meed_mat b = parity_mat(p, s->m, s->r, 1, t, 1.0);
            struct meed_mat a = parity_mat(p, s->r, s->k, row_pad(s, 2), t, 1.0);
            struct meed_mat out = parity_mat(p, s->m, s->k, row_pad(s, 3), t, 1.0);
            float *gates = parity_floats(p, s->r, 1.0);
            const double *g = parity_from_floats(p, gates, s->r);
            double *want = parity_values(p, w);
            double *left = parity_values(p, b);
            for (int64_t j = 0; j < s->m * s->r; j++) {
                left[j] *= g[j % s->r];
            }
            product(left, s->r, 1, parity_values(p, a), s->k, 1, s->m, s->k, s->r, want);
            p->be->lora_merge(p->be, w, b, a, gates, out);
            parity_close(p, "merged", out, want, close_f32_sum(s->r), 1.05);
            p->be->lora_merge(p->be, w, b, a, gates, w);
            parity_same_rows(p, "merged in place", w, out);
            parity_release(p);
        }
    }
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
