/* Attention over packed sequences, its gradient, and decoding, against full float64 softmax.
 *
 * Goal: causal grouped-query attention at lengths off the block (1, 63, 64, 65, 130, 530, 0), odd
 * head sizes and groups, windows of one key, within a block, of a block and beyond, aligned rows
 * and odd strides; the log-sum-exp; the fused tail; gradients
 * from the softmax's Jacobian, checked once against central differences; each sequence alone gives
 * the bits of the batch; decoding row by row, as one prompt or behind another slot's pages gives
 * the same bits, and the values of the forward; windows within a page and across parts.
 */
#define PARITY_ATTENTION(name) PARITY_RUN(name)
#include "tests/support/parity.h"

#include <math.h>
#include <string.h>

enum { MAX_SEQUENCES = 8 };

struct shape {
    struct meed_attention_shape a;
    int32_t r;
    int32_t pad; /* of qkv; 0 and 8 leave rows at multiples of 16 bytes where widths do */
    int32_t sequences;
    int32_t lengths[MAX_SEQUENCES];
};
static const struct shape shapes[] = {
    {{1, 1, 1, 1.0f, 0}, 0, 3, 1, {1}},
    {{2, 1, 8, 0.35f, 0}, 8, 3, 3, {5, 1, 9}},
    {{6, 2, 17, 0.25f, 0}, 5, 3, 4, {63, 0, 65, 64}},
    {{4, 4, 64, 0.125f, 0}, 0, 3, 2, {130, 70}},
    {{3, 1, 33, 0.2f, 0}, 16, 3, 2, {3, 200}},
    {{4, 2, 32, 0.18f, 0}, 0, 0, 3, {33, 1, 100}},
    {{2, 1, 96, 0.1f, 0}, 0, 8, 2, {65, 70}},
    {{4, 1, 128, 0.09f, 0}, 8, 0, 2, {129, 66}},
    {{2, 1, 64, 0.125f, 0}, 8, 8, 1, {530}},
    {{2, 1, 8, 0.35f, 1}, 0, 3, 2, {70, 5}},
    {{4, 2, 17, 0.25f, 3}, 5, 3, 2, {66, 30}},
    {{2, 2, 32, 0.18f, 37}, 8, 0, 3, {10, 129, 1}},
    {{2, 1, 64, 0.125f, 64}, 0, 8, 1, {200}},
    {{2, 1, 96, 0.1f, 65}, 0, 8, 1, {140}},
    {{2, 1, 128, 0.09f, 130}, 8, 0, 1, {270}},
    {{1, 1, 256, 0.0625f, 60}, 0, 0, 1, {110}},
};
static bool shape_fits(const struct shape *s)
{
    enum { SMALL_ROWS = 140, SMALL_SIZE = 96 };
    int32_t rows = 0;
    for (int32_t i = 0; i < s->sequences; i++) {
        rows += s->lengths[i];
    }
    return !parity_small || (rows <= SMALL_ROWS && s->a.head_dim <= SMALL_SIZE);
}
/* Other matrices have other odd strides. */
static int32_t other_pad(const struct shape *s, int32_t odd)
{
    return s->pad % 8 ? odd : s->pad;
}
/* A twin keeps P in fp32; tensor cores take it rounded to bf16, an error as large as the output's.
 */
static double out_factor(const struct parity *p)
{
    return p->be->host_memory ? 1.1 : 2.2;
}

struct problem {
    struct meed_attention_shape a;
    int64_t rows;
    int64_t cols;  /* (H + 2G)·D */
    int64_t width; /* H·D */
    const struct shape *s;
    int32_t starts[MAX_SEQUENCES + 1];
    struct meed_pack pack;
};

static struct problem problem_make(struct parity *p, const struct shape *s)
{
    struct problem q = {.a = s->a, .s = s};
    int32_t positions[1024];
    for (int32_t i = 0; i < s->sequences; i++) {
        q.starts[i + 1] = q.starts[i] + s->lengths[i];
        for (int32_t t = 0; t < s->lengths[i]; t++) {
            positions[q.starts[i] + t] = t;
        }
        q.pack.max_length = MEED_MAX(q.pack.max_length, s->lengths[i]);
    }
    q.rows = q.starts[s->sequences];
    q.cols = (int64_t)(s->a.heads + 2 * s->a.kv_heads) * s->a.head_dim;
    q.width = (int64_t)s->a.heads * s->a.head_dim;
    q.pack.sequences = s->sequences;
    q.pack.starts = parity_ints(p, q.starts, s->sequences + 1);
    q.pack.positions = parity_ints(p, positions, q.rows);
    return q;
}

/* The first key that the row at position t sees. */
static int64_t first_key(const struct problem *q, int64_t t)
{
    return q->a.window > 0 ? MEED_MAX(0, t - q->a.window + 1) : 0;
}

/* Probabilities of row m of sequence i, head h, over its keys; returns the log-sum-exp. */
static double row_softmax(const struct problem *q, const double *qkv, int64_t start, int64_t t,
                          int64_t h, double *prob)
{
    int64_t size = q->a.head_dim;
    int64_t group = h / (q->a.heads / q->a.kv_heads);
    const double *query = qkv + (start + t) * q->cols + h * size;
    double peak = -INFINITY;
    double sum = 0.0;
    int64_t begin = first_key(q, t);
    for (int64_t j = begin; j <= t; j++) {
        const double *key = qkv + (start + j) * q->cols + q->width + group * size;
        prob[j] = 0.0;
        for (int64_t d = 0; d < size; d++) {
            prob[j] += (double)q->a.scale * query[d] * key[d];
        }
        peak = fmax(peak, prob[j]);
    }
    for (int64_t j = begin; j <= t; j++) {
        prob[j] = exp(prob[j] - peak);
        sum += prob[j];
    }
    for (int64_t j = begin; j <= t; j++) {
        prob[j] /= sum;
    }
    return peak + log(sum);
}

static void reference_fwd(const struct problem *q, const double *qkv, double *out, double *lse)
{
    int64_t size = q->a.head_dim;
    double prob[1024];
    for (int32_t i = 0; i < q->s->sequences; i++) {
        for (int64_t t = 0; t < q->s->lengths[i]; t++) {
            for (int64_t h = 0; h < q->a.heads; h++) {
                int64_t group = h / (q->a.heads / q->a.kv_heads);
                int64_t m = q->starts[i] + t;
                lse[m * q->a.heads + h] = row_softmax(q, qkv, q->starts[i], t, h, prob);
                for (int64_t d = 0; d < size; d++) {
                    double sum = 0.0;
                    for (int64_t j = first_key(q, t); j <= t; j++) {
                        sum += prob[j] * qkv[(q->starts[i] + j) * q->cols + q->width +
                                             (q->a.kv_heads + group) * size + d];
                    }
                    out[m * q->width + h * size + d] = sum;
                }
            }
        }
    }
}

static void reference_bwd(const struct problem *q, const double *qkv, const double *dout,
                          double *dqkv)
{
    int64_t size = q->a.head_dim;
    double prob[1024];
    double dprob[1024];
    for (int32_t i = 0; i < q->s->sequences; i++) {
        for (int64_t t = 0; t < q->s->lengths[i]; t++) {
            for (int64_t h = 0; h < q->a.heads; h++) {
                int64_t group = h / (q->a.heads / q->a.kv_heads);
                int64_t m = q->starts[i] + t;
                int64_t k_col = q->width + group * size;
                int64_t v_col = k_col + q->a.kv_heads * size;
                const double *grad = dout + m * q->width + h * size;
                double mean = 0.0;
                row_softmax(q, qkv, q->starts[i], t, h, prob);
                for (int64_t j = first_key(q, t); j <= t; j++) {
                    int64_t row = (q->starts[i] + j) * q->cols;
                    dprob[j] = 0.0;
                    for (int64_t d = 0; d < size; d++) {
                        dprob[j] += grad[d] * qkv[row + v_col + d];
                        dqkv[row + v_col + d] += prob[j] * grad[d];
                    }
                    mean += prob[j] * dprob[j];
                }
                for (int64_t j = first_key(q, t); j <= t; j++) {
                    int64_t row = (q->starts[i] + j) * q->cols;
                    double ds = (double)q->a.scale * prob[j] * (dprob[j] - mean);
                    for (int64_t d = 0; d < size; d++) {
                        dqkv[m * q->cols + h * size + d] += ds * qkv[row + k_col + d];
                        dqkv[row + k_col + d] += ds * qkv[m * q->cols + h * size + d];
                    }
                }
            }
        }
    }
}

/* Runs the forward of every sequence alone and compares its rows. */
static void sequences_alone(struct parity *p, const struct problem *q, struct meed_mat qkv,
                            const struct meed_tail *tail, struct meed_mat out)
{
    for (int32_t i = 0; i < q->s->sequences; i++) {
        int32_t starts[2] = {0, q->s->lengths[i]};
        struct meed_pack pack = {parity_ints(p, starts, 2), 1, q->s->lengths[i],
                                 q->pack.positions + q->starts[i]};
        struct meed_mat one = parity_mat(p, q->s->lengths[i], out.cols, 0, out.dtype, 1.0);
        p->be->attention_fwd(p->be, meed_mat_rows(qkv, q->starts[i], q->s->lengths[i]), q->a, &pack,
                             tail, one, NULL);
        parity_same_rows(p, "sequence alone", one,
                         meed_mat_rows(out, q->starts[i], q->s->lengths[i]));
    }
}

static void fwd_shape(struct parity *p, const struct shape *s, enum meed_dtype dtype)
{
    struct problem q = problem_make(p, s);
    struct meed_mat qkv = parity_mat(p, q.rows, q.cols, s->pad, dtype, 2.0);
    struct meed_mat out = parity_mat(p, q.rows, q.width + s->r, 0, dtype, 1.0);
    struct meed_mat a = parity_mat(p, s->r, q.width, 0, dtype, 1.0);
    struct meed_tail tail = {a, NULL, NULL, 0.0f, 0};
    float *lse = parity_floats(p, q.rows * s->a.heads + 1, 1.0);
    double *want = parity_doubles(p, q.rows * q.width);
    double *want_lse = parity_doubles(p, q.rows * s->a.heads);
    reference_fwd(&q, parity_values(p, qkv), want, want_lse);
    p->be->attention_fwd(p->be, qkv, q.a, &q.pack, &tail, out, lse);
    parity_close(p, "attention out", meed_mat_cols(out, 0, q.width), want, 1e-11, out_factor(p));
    close_check("attention lse", parity_from_floats(p, lse, q.rows * s->a.heads), want_lse,
                q.rows * s->a.heads, 1e-11);
    struct meed_mat again = parity_copy(p, out);
    p->be->lora_down(p->be, again, q.width, &tail);
    parity_same_rows(p, "fused tail", again, out);
    sequences_alone(p, &q, qkv, &tail, out);
    parity_record(p, out);
    parity_release(p);
}

static void parity_case_attention_fwd(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        if (shape_fits(&shapes[i])) {
            fwd_shape(p, &shapes[i], MEED_DTYPE_F32);
            fwd_shape(p, &shapes[i], MEED_DTYPE_BF16);
        }
    }
}

static void bwd_shape(struct parity *p, const struct shape *s, enum meed_dtype dtype)
{
    struct problem q = problem_make(p, s);
    struct meed_mat qkv = parity_mat(p, q.rows, q.cols, s->pad, dtype, 2.0);
    struct meed_mat out = parity_mat(p, q.rows, q.width, 0, dtype, 1.0);
    struct meed_mat dout = parity_mat(p, q.rows, q.width, other_pad(s, 2), dtype, 1.0);
    struct meed_mat dqkv = parity_mat(p, q.rows, q.cols, other_pad(s, 1), dtype, 1.0);
    float *lse = parity_floats(p, q.rows * s->a.heads + 1, 1.0);
    p->be->attention_fwd(p->be, qkv, q.a, &q.pack, NULL, out, lse);
    double *want = parity_doubles(p, q.rows * q.cols);
    reference_bwd(&q, parity_values(p, qkv), parity_values(p, dout), want);
    p->be->attention_bwd(p->be, dout, out, qkv, lse, q.a, &q.pack, dqkv);
    /* In bf16 δ comes from the rounded output: its error enters every dq and dk. */
    parity_close(p, "attention dqkv", dqkv, want, 1e-10, 3.0);
    for (int32_t i = 0; i < s->sequences; i++) {
        int32_t starts[2] = {0, s->lengths[i]};
        struct meed_pack pack = {parity_ints(p, starts, 2), 1, s->lengths[i], q.pack.positions};
        int64_t from = q.starts[i];
        int64_t rows = s->lengths[i];
        struct meed_mat one = parity_mat(p, rows, q.cols, 0, dtype, 1.0);
        p->be->attention_bwd(p->be, meed_mat_rows(dout, from, rows), meed_mat_rows(out, from, rows),
                             meed_mat_rows(qkv, from, rows), lse + from * s->a.heads, q.a, &pack,
                             one);
        parity_same_rows(p, "sequence alone", one, meed_mat_rows(dqkv, from, rows));
    }
    parity_release(p);
}

static void parity_case_attention_bwd(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        if (shape_fits(&shapes[i])) {
            bwd_shape(p, &shapes[i], MEED_DTYPE_F32);
            bwd_shape(p, &shapes[i], MEED_DTYPE_BF16);
        }
    }
}

/* Rows of the next piece: a long prompt is fed at once up to its last rows. The emulator finds 64
 * rows one by one long. */
static int32_t piece_rows(const struct parity *p, int32_t at, int32_t length, int32_t piece)
{
    enum { LAST = 15 };
    bool lump = at == 0 && length > (p->be->host_memory ? 256 : 64);
    return MEED_MIN(lump ? MEED_MAX(piece, length - LAST) : piece, length - at);
}

enum { DECODE_SLOTS = 3 };

/* Slots of `length` positions, their pages in no order. */
static struct meed_kv_layer decode_cache(struct parity *p, const struct problem *q, int32_t length,
                                         enum meed_dtype dtype, int32_t *table)
{
    int64_t page = MEED_KV_PAGE * (int64_t)q->a.kv_heads * q->a.head_dim;
    struct meed_kv_layer cache = {.slot_pages = (length + 3) / MEED_KV_PAGE + 1, .dtype = dtype};
    cache.pages = DECODE_SLOTS * cache.slot_pages;
    cache.k = parity_mat(p, cache.pages, page, 0, dtype, 1.0).data;
    cache.v = parity_mat(p, cache.pages, page, 0, dtype, 1.0).data;
    for (int32_t slot = 0; slot < DECODE_SLOTS; slot++) {
        for (int32_t b = 0; b < cache.slot_pages; b++) {
            table[slot * cache.slot_pages + b] = cache.pages - 1 - (b * DECODE_SLOTS + slot);
        }
    }
    cache.table = parity_ints(p, table, cache.pages);
    return cache;
}

/* A prompt of `length` rows in slot 2 of 3, in pieces of `piece` rows. Then slot 0 takes all full
 * pages of slot 2 but writes its last, and gets the last rows together with slot 2: same bits. */
static struct meed_mat decode_pieces(struct parity *p, const struct problem *q, struct meed_mat qkv,
                                     const struct meed_tail *tail, int32_t length, int32_t piece)
{
    int32_t table[DECODE_SLOTS * 16];
    struct meed_kv_layer cache = decode_cache(p, q, length, qkv.dtype, table);
    struct meed_mat out = parity_mat(p, length, q->width + tail->a.rows, 0, qkv.dtype, 1.0);
    int32_t slots[1024];
    int32_t positions[1024];
    for (int32_t i = 0; i < length; i++) {
        slots[i] = 2;
        positions[i] = i;
    }
    const int32_t *slots_dev = parity_ints(p, slots, length);
    const int32_t *positions_dev = parity_ints(p, positions, length);
    for (int32_t i = 0, rows; i < length; i += rows) {
        rows = piece_rows(p, i, length, piece);
        p->be->attention_decode(p->be, meed_mat_rows(qkv, i, rows), q->a, cache, slots_dev + i,
                                positions_dev + i, tail, meed_mat_rows(out, i, rows));
    }
    int32_t shared = (length - 1) / MEED_KV_PAGE;
    for (int32_t b = 0; b < shared; b++) {
        table[b] = table[2 * cache.slot_pages + b];
    }
    cache.table = parity_ints(p, table, cache.pages);
    int32_t own = shared * MEED_KV_PAGE;
    int32_t last = MEED_MAX(own, length - 2);
    if (last > own) {
        for (int32_t i = own; i < last; i++) {
            slots[i] = 0;
        }
        p->be->attention_decode(p->be, meed_mat_rows(qkv, own, last - own), q->a, cache,
                                parity_ints(p, slots, length) + own, positions_dev + own, tail,
                                parity_mat(p, last - own, out.cols, 0, out.dtype, 1.0));
    }
    for (int32_t i = last; i < length; i++) {
        const int32_t both[] = {0, 2}, places[] = {i, i};
        struct meed_mat pair = parity_mat(p, 2, qkv.cols, 0, qkv.dtype, 1.0);
        struct meed_mat got = parity_mat(p, 2, out.cols, 0, out.dtype, 1.0);
        p->be->embed(p->be, qkv, 1.0f, parity_ints(p, places, 2), pair);
        p->be->attention_decode(p->be, pair, q->a, cache, parity_ints(p, both, 2),
                                parity_ints(p, places, 2), tail, got);
        parity_same_rows(p, "a shared prefix", meed_mat_rows(got, 0, 1), meed_mat_rows(out, i, 1));
        parity_same_rows(p, "its owner", meed_mat_rows(got, 1, 1), meed_mat_rows(out, i, 1));
    }
    return out;
}

static void decode_shape(struct parity *p, const struct shape *s, int32_t window,
                         enum meed_dtype dtype)
{
    struct shape single = *s;
    single.a.window = window;
    single.sequences = 1;
    single.lengths[0] = s->lengths[s->sequences - 1];
    int32_t length = single.lengths[0];
    struct problem q = problem_make(p, &single);
    struct meed_mat qkv = parity_mat(p, length, q.cols, 0, dtype, 2.0);
    struct meed_mat a = parity_mat(p, s->r, q.width, 0, dtype, 1.0);
    struct meed_tail tail = {a, NULL, NULL, 0.0f, 0};
    double *want = parity_doubles(p, q.rows * q.width);
    double *lse = parity_doubles(p, q.rows * s->a.heads);
    reference_fwd(&q, parity_values(p, qkv), want, lse);
    struct meed_mat whole = decode_pieces(p, &q, qkv, &tail, length, length);
    parity_close(p, "decode out", meed_mat_cols(whole, 0, q.width), want, 1e-11, out_factor(p));
    struct meed_mat singles = decode_pieces(p, &q, qkv, &tail, length, 1);
    struct meed_mat sevens = decode_pieces(p, &q, qkv, &tail, length, 7);
    parity_same_rows(p, "row by row", singles, whole);
    parity_same_rows(p, "seven by seven", sevens, whole);
    parity_record(p, whole);
    parity_release(p);
}

static void parity_case_attention_decode(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        if (shape_fits(&shapes[i])) {
            decode_shape(p, &shapes[i], shapes[i].a.window, MEED_DTYPE_F32);
            decode_shape(p, &shapes[i], shapes[i].a.window, MEED_DTYPE_BF16);
            if (shapes[i].a.window == 0) {
                decode_shape(p, &shapes[i], 20, i % 2 ? MEED_DTYPE_F32 : MEED_DTYPE_BF16);
                decode_shape(p, &shapes[i], 100, i % 2 ? MEED_DTYPE_BF16 : MEED_DTYPE_F32);
            }
        }
    }
}

static void attention_formula_equals_central_differences(void **state)
{
    (void)state;
    enum { ROWS = 4, COLS = 8 * 3, WIDTH = 4 * 3 };
    static const struct shape s = {{4, 2, 3, 0.5f, 0}, 0, 3, 2, {3, 1}};
    struct problem q = {.a = s.a, .rows = ROWS, .cols = COLS, .width = WIDTH, .s = &s};
    q.starts[1] = 3;
    q.starts[2] = 4;
    struct meed_rng rng = meed_rng_stream(4, "differences", 0);
    double qkv[ROWS * COLS];
    double dout[ROWS * WIDTH];
    double out[ROWS * WIDTH];
    double lse[ROWS * 4];
    double dqkv[ROWS * COLS] = {0};
    for (int i = 0; i < ROWS * COLS; i++) {
        qkv[i] = 2.0 * meed_rng_unit(&rng) - 1.0;
    }
    for (int i = 0; i < ROWS * WIDTH; i++) {
        dout[i] = 2.0 * meed_rng_unit(&rng) - 1.0;
    }
    reference_bwd(&q, qkv, dout, dqkv);
    for (int i = 0; i < ROWS * COLS; i++) {
        double kept = qkv[i];
        double difference = 0.0;
        for (int side = -1; side <= 1; side += 2) {
            qkv[i] = kept + side * 1e-5;
            reference_fwd(&q, qkv, out, lse);
            for (int j = 0; j < ROWS * WIDTH; j++) {
                difference += side * out[j] * dout[j] / 2e-5;
            }
        }
        qkv[i] = kept;
        assert_true(fabs(difference - dqkv[i]) < 1e-8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define MEED_OP(name, text) PARITY_FAMILY_##name(name)
#include "kernels/ops.def"
#undef MEED_OP
        cmocka_unit_test(attention_formula_equals_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
