/* RMSNorm of rows and of heads, forward and backward, against float64.
 *
 * Goal: y, the stored sum, rstd, the fused tail and both gradients. Method: the definition in
 * float64; gradients from the formula of a quotient, itself checked once against central
 * differences (step 1e-5, error below 1e-8 of the gradient's norm).
 */
#define PARITY_RMSNORM(name) PARITY_RUN(name)
#include "tests/support/parity.h"

#include <math.h>

struct shape {
    int64_t m;
    int64_t k;
    int64_t r;
};
static const struct shape shapes[] = {{0, 5, 0},    {1, 1, 0},     {3, 7, 8},     {33, 17, 5},
                                      {37, 64, 8},  {5, 193, 0},   {70, 576, 40}, {2, 2049, 17},
                                      {65, 321, 5}, {66, 2056, 16}};

/* Rows at multiples of 16 bytes, where K allows it, or at odd places. */
static int64_t row_pad(struct shape s, int64_t odd)
{
    return s.k % 8 ? odd : 8;
}

static const double eps = 1e-5;

/* Σ dy·y(s) of one row; y = s·rstd·w. */
static double row_norm(const double *s, const double *w, int64_t k, double *y)
{
    double mean = 0.0;
    for (int64_t i = 0; i < k; i++) {
        mean += s[i] * s[i] / (double)k;
    }
    double rstd = 1.0 / sqrt(mean + (double)(float)eps);
    for (int64_t i = 0; y && i < k; i++) {
        y[i] = s[i] * rstd * w[i];
    }
    return rstd;
}

static void row_norm_grad(const double *s, const double *w, const double *dy, int64_t k, double *ds)
{
    double rstd = row_norm(s, w, k, NULL);
    double dots = 0.0;
    for (int64_t i = 0; i < k; i++) {
        dots += w[i] * dy[i] * s[i];
    }
    for (int64_t i = 0; i < k; i++) {
        ds[i] = rstd * w[i] * dy[i] - s[i] * rstd * rstd * rstd * dots / (double)k;
    }
}

static void fwd_shape(struct parity *p, struct shape s, enum meed_dtype dtype, bool residual)
{
    struct meed_mat x = parity_mat(p, s.m, s.k, row_pad(s, 1), dtype, 2.0);
    struct meed_mat add = parity_mat(p, s.m, s.k, row_pad(s, 2), dtype, 1.0);
    struct meed_mat sum = parity_mat(p, s.m, s.k, 0, dtype, 1.0);
    struct meed_mat y = parity_mat(p, s.m, s.k + s.r, row_pad(s, 3), dtype, 1.0);
    struct meed_mat a = parity_mat(p, s.r, s.k, 0, dtype, 1.0);
    float *w = parity_floats(p, s.k, 2.0);
    float *rstd = parity_floats(p, s.m + 1, 1.0);
    struct meed_mat none = {NULL, 0, 0, 0, dtype};
    struct meed_tail tail = {s.r ? a : none, NULL, NULL, 0.0f, 0};
    p->be->rmsnorm_fwd(p->be, x, residual ? add : none, w, (float)eps, &tail, sum, y, rstd);
    double *want_sum = parity_values(p, x);
    const double *second = parity_values(p, add);
    for (int64_t i = 0; residual && i < s.m * s.k; i++) {
        want_sum[i] += second[i];
    }
    parity_close(p, "rmsnorm sum", sum, want_sum, 1e-14, 1.01);
    const double *stored = parity_values(p, sum);
    const double *weights = parity_from_floats(p, w, s.k);
    const double *factors = parity_values(p, a);
    const double *got = parity_values(p, meed_mat_cols(y, 0, s.k));
    double *want = parity_doubles(p, s.m * s.k);
    double *want_t = parity_doubles(p, s.m * s.r);
    double *want_rstd = parity_doubles(p, s.m);
    for (int64_t m = 0; m < s.m; m++) {
        want_rstd[m] = row_norm(stored + m * s.k, weights, s.k, want + m * s.k);
        for (int64_t j = 0; j < s.r; j++) {
            for (int64_t k = 0; k < s.k; k++) {
                want_t[m * s.r + j] += got[m * s.k + k] * factors[j * s.k + k];
            }
        }
    }
    parity_close(p, "rmsnorm y", meed_mat_cols(y, 0, s.k), want, close_f32_sum(s.k), 1.05);
    parity_close(p, "rmsnorm tail", meed_mat_cols(y, s.k, s.r), want_t, close_f32_sum(s.k), 1.1);
    close_check("rstd", parity_from_floats(p, rstd, s.m), want_rstd, s.m, close_f32_sum(s.k));
    /* A row alone, in place, without what is optional: the same bits. */
    for (int64_t m = 0; m < s.m; m += 9) {
        struct meed_mat row = parity_copy(p, meed_mat_rows(y, m, 1));
        p->be->rmsnorm_fwd(p->be, meed_mat_rows(x, m, 1),
                           residual ? meed_mat_rows(add, m, 1) : none, w, (float)eps, &tail, none,
                           row, NULL);
        parity_same_rows(p, "row alone", row, meed_mat_rows(y, m, 1));
    }
    p->be->rmsnorm_fwd(p->be, x, residual ? add : none, w, (float)eps, &tail, x, y, NULL);
    parity_same_rows(p, "sum in place", x, sum);
    parity_release(p);
}

static void parity_case_rmsnorm_fwd(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        for (int dtype = 0; dtype < 2; dtype++) {
            fwd_shape(p, shapes[i], (enum meed_dtype)dtype, false);
            fwd_shape(p, shapes[i], (enum meed_dtype)dtype, true);
        }
    }
}

static void bwd_shape(struct parity *p, struct shape s, enum meed_dtype dtype)
{
    struct meed_mat sum = parity_mat(p, s.m, s.k, row_pad(s, 1), dtype, 2.0);
    struct meed_mat dy = parity_mat(p, s.m, s.k, row_pad(s, 4), dtype, 1.0);
    struct meed_mat dsum = parity_mat(p, s.m, s.k, row_pad(s, 2), dtype, 1.0);
    struct meed_mat again = parity_copy(p, dsum);
    float *w = parity_floats(p, s.k, 2.0);
    float *rstd = parity_floats(p, s.m + 1, 1.0);
    double *want = parity_values(p, dsum);
    const double *values = parity_values(p, sum);
    const double *weights = parity_from_floats(p, w, s.k);
    const double *grad = parity_values(p, dy);
    double *ds = parity_doubles(p, s.k);
    float *rstd_host = calloc((size_t)s.m + 1, sizeof *rstd_host);
    assert_non_null(rstd_host);
    for (int64_t m = 0; m < s.m; m++) {
        rstd_host[m] = (float)row_norm(values + m * s.k, weights, s.k, NULL);
        row_norm_grad(values + m * s.k, weights, grad + m * s.k, s.k, ds);
        for (int64_t k = 0; k < s.k; k++) {
            want[m * s.k + k] += ds[k];
        }
    }
    assert_int_equal(p->be->copy_to(p->be, rstd, rstd_host, (size_t)s.m * 4), MEED_OK);
    free(rstd_host);
    p->be->rmsnorm_bwd(p->be, dy, sum, w, rstd, dsum);
    /* One column: the gradient of x/|x| is 0 but for eps, a difference that cancels. */
    parity_close(p, "rmsnorm dsum", dsum, want, s.k == 1 ? 1e-8 : close_f32_sum(s.k), 1.1);
    for (int64_t m = 0; m < s.m; m += 7) {
        p->be->rmsnorm_bwd(p->be, meed_mat_rows(dy, m, 1), meed_mat_rows(sum, m, 1), w, rstd + m,
                           meed_mat_rows(again, m, 1));
        parity_same_rows(p, "row alone", meed_mat_rows(again, m, 1), meed_mat_rows(dsum, m, 1));
    }
    parity_release(p);
}

static void parity_case_rmsnorm_bwd(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        bwd_shape(p, shapes[i], MEED_DTYPE_F32);
        bwd_shape(p, shapes[i], MEED_DTYPE_BF16);
    }
}

static void heads_shape(struct parity *p, int64_t rows, int64_t heads, int64_t size,
                        enum meed_dtype dtype, bool backward)
{
    int64_t cols = heads * size;
    int64_t pad = size % 8 == 0 ? 8 : 3; /* rows at multiples of 16 bytes, and at none */
    struct meed_mat x = parity_mat(p, rows, cols, pad, dtype, 2.0);
    const double *values = parity_values(p, x);
    float *w = parity_floats(p, size, 2.0);
    float *rstd = parity_floats(p, rows * heads + 1, 1.0);
    const double *weights = parity_from_floats(p, w, size);
    double *want = parity_doubles(p, rows * cols);
    double *want_rstd = parity_doubles(p, rows * heads);
    for (int64_t i = 0; i < rows * heads; i++) {
        want_rstd[i] = row_norm(values + i * size, weights, size, want + i * size);
    }
    p->be->headnorm_fwd(p->be, x, (int32_t)heads, w, (float)eps, rstd);
    if (!backward) {
        parity_close(p, "headnorm y", x, want, close_f32_sum(size), 1.05);
        close_check("head rstd", parity_from_floats(p, rstd, rows * heads), want_rstd, rows * heads,
                    close_f32_sum(size));
        parity_release(p);
        return;
    }
    struct meed_mat dx = parity_mat(p, rows, cols, 1, dtype, 1.0);
    const double *grad = parity_values(p, dx);
    /* The op sees y as stored: differentiate at the input that y and rstd stand for. */
    const double *y = parity_values(p, x);
    const double *rs = parity_from_floats(p, rstd, rows * heads);
    for (int64_t i = 0; i < rows * heads; i++) {
        double dots = 0.0;
        for (int64_t d = 0; d < size; d++) {
            dots += grad[i * size + d] * y[i * size + d] / (double)size;
        }
        for (int64_t d = 0; d < size; d++) {
            double unit = y[i * size + d] / weights[d];
            want[i * size + d] = rs[i] * (weights[d] * grad[i * size + d] - unit * dots);
        }
    }
    p->be->headnorm_bwd(p->be, x, (int32_t)heads, w, rstd, dx);
    /* dx is a difference that nearly cancels where size is 1. */
    parity_close(p, "headnorm dx", dx, want, size == 1 ? 1.0 : 1e-11, 1.3);
    parity_release(p);
}

static void parity_case_headnorm_fwd(struct parity *p)
{
    for (int dtype = 0; dtype < 2; dtype++) {
        heads_shape(p, 0, 2, 8, (enum meed_dtype)dtype, false);
        heads_shape(p, 5, 3, 7, (enum meed_dtype)dtype, false);
        heads_shape(p, 40, 4, 64, (enum meed_dtype)dtype, false);
    }
}

static void parity_case_headnorm_bwd(struct parity *p)
{
    for (int dtype = 0; dtype < 2; dtype++) {
        heads_shape(p, 0, 2, 8, (enum meed_dtype)dtype, true);
        heads_shape(p, 5, 3, 7, (enum meed_dtype)dtype, true);
        heads_shape(p, 40, 4, 64, (enum meed_dtype)dtype, true);
    }
}

static void rmsnorm_formula_equals_central_differences(void **state)
{
    (void)state;
    enum { K = 9 };
    struct meed_rng rng = meed_rng_stream(3, "differences", 0);
    double s[K];
    double w[K];
    double dy[K];
    double ds[K];
    double y[K];
    for (int i = 0; i < K; i++) {
        s[i] = 2.0 * meed_rng_unit(&rng) - 1.0;
        w[i] = 2.0 * meed_rng_unit(&rng) - 1.0;
        dy[i] = 2.0 * meed_rng_unit(&rng) - 1.0;
    }
    row_norm_grad(s, w, dy, K, ds);
    for (int i = 0; i < K; i++) {
        double difference = 0.0;
        double kept = s[i];
        for (int side = -1; side <= 1; side += 2) {
            s[i] = kept + side * 1e-5;
            row_norm(s, w, K, y);
            for (int j = 0; j < K; j++) {
                difference += side * dy[j] * y[j] / 2e-5;
            }
        }
        s[i] = kept;
        assert_true(fabs(difference - ds[i]) < 1e-8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define MEED_OP(name, text) PARITY_FAMILY_##name(name)
#include "kernels/ops.def"
#undef MEED_OP
        cmocka_unit_test(rmsnorm_formula_equals_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
