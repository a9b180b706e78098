/* AdamW over several steps and the sum of squares, against float64.
 *
 * Goal: the update rule with bias correction, decay and clipping (ten steps, so that moments and
 * corrections matter), and a norm that is added to and has one order.
 */
#define PARITY_ADAMW(name) PARITY_RUN(name)
#include "tests/support/parity.h"

#include <math.h>

/* A norm of 4 under a clipping norm of 2: the gradient is halved. */
static struct meed_adamw_step clipped(int64_t t)
{
    struct meed_adamw_step step = meed_adamw_step_make(1e-2f, 0.9f, 0.99f, 1e-8f, 0.1f, 2.0f, t);
    step.sqnorm = 16.0;
    return step;
}

static void *step_dev(struct parity *p, const struct meed_adamw_step *step)
{
    void *device = parity_floats(p, sizeof *step / sizeof(float), 0.0);
    assert_int_equal(p->be->copy_to(p->be, device, step, sizeof *step), MEED_OK);
    return device;
}

/* Where a sum is not finite, nothing is written; a norm below the limit scales nothing. */
static void adamw_limits(struct parity *p)
{
    enum { COUNT = 300 };
    for (int i = 0; i < 4; i++) {
        struct meed_adamw_step step = clipped(1);
        struct meed_mat parameter = parity_mat(p, 1, COUNT, 0, MEED_DTYPE_F32, 1.0);
        struct meed_mat before = parity_copy(p, parameter);
        struct meed_mat m = parity_mat(p, 1, COUNT, 0, MEED_DTYPE_F32, 0.0);
        struct meed_mat v = parity_mat(p, 1, COUNT, 0, MEED_DTYPE_F32, 0.0);
        float *gradient = parity_floats(p, COUNT, 3.0);
        const double *g = parity_from_floats(p, gradient, COUNT);
        double *want_m = parity_doubles(p, COUNT);
        step.sqnorm = i == 0 ? (double)INFINITY : i == 2 ? 3.9 : 16.0;
        step.guard = i == 1 ? (double)NAN : 0.0;
        step.clip_norm = i == 3 ? 0.0f : 2.0f;
        p->be->adamw(p->be, step_dev(p, &step), COUNT, gradient, m.data, v.data, parameter.data);
        for (int64_t j = 0; j < COUNT && i >= 2; j++) {
            want_m[j] = (1.0 - (double)0.9f) * g[j];
        }
        if (i < 2) {
            parity_same_rows(p, "adamw refused", parameter, before);
        }
        parity_close(p, "adamw unclipped m", m, want_m, 1e-12, 1.0);
        parity_release(p);
    }
}

static void parity_case_adamw(struct parity *p)
{
    static const int64_t counts[] = {0, 1, 7, 1000, 40003};
    for (size_t i = 0; i < MEED_COUNT(counts); i++) {
        int64_t count = counts[i];
        struct meed_mat parameter = parity_mat(p, 1, count, 0, MEED_DTYPE_F32, 1.0);
        struct meed_mat m = parity_mat(p, 1, count, 0, MEED_DTYPE_F32, 0.0);
        struct meed_mat v = parity_mat(p, 1, count, 0, MEED_DTYPE_F32, 0.0);
        double *want = parity_values(p, parameter);
        double *want_m = parity_doubles(p, count);
        double *want_v = parity_doubles(p, count);
        for (int t = 1; t <= 10; t++) {
            struct meed_adamw_step step = clipped(t);
            float *gradient = parity_floats(p, count, 3.0);
            const double *g = parity_from_floats(p, gradient, count);
            p->be->adamw(p->be, step_dev(p, &step), count, gradient, m.data, v.data,
                         parameter.data);
            for (int64_t j = 0; j < count; j++) {
                double grad = 0.5 * g[j];
                want_m[j] = (double)0.9f * want_m[j] + (1.0 - (double)0.9f) * grad;
                want_v[j] = (double)0.99f * want_v[j] + (1.0 - (double)0.99f) * grad * grad;
                double m_hat = want_m[j] / (1.0 - pow((double)0.9f, t));
                double v_hat = want_v[j] / (1.0 - pow((double)0.99f, t));
                want[j] -= (double)1e-2f *
                           (m_hat / (sqrt(v_hat) + (double)1e-8f) + (double)0.1f * want[j]);
            }
        }
        parity_close(p, "adamw parameter", parameter, want, 1e-12, 1.0);
        parity_close(p, "adamw m", m, want_m, 1e-12, 1.0);
        parity_close(p, "adamw v", v, want_v, 1e-12, 1.0);
        parity_release(p);
    }
    adamw_limits(p);
}

static void parity_case_sqnorm(struct parity *p)
{
    static const int64_t counts[] = {0, 1, 7, 4096, 40003};
    for (size_t i = 0; i < MEED_COUNT(counts); i++) {
        float *values = parity_floats(p, counts[i], 1.0);
        const double *x = parity_from_floats(p, values, counts[i]);
        double want = 5.0;
        for (int64_t j = 0; j < counts[i]; j++) {
            want += x[j] * x[j];
        }
        double got = 5.0;
        void *sum = parity_floats(p, 2, 0.0);
        assert_int_equal(p->be->copy_to(p->be, sum, &got, sizeof got), MEED_OK);
        p->be->sqnorm(p->be, values, counts[i], sum);
        assert_int_equal(p->be->copy_from(p->be, &got, sum, sizeof got), MEED_OK);
        assert_int_equal(p->be->sync(p->be), MEED_OK);
        close_check("sqnorm", &got, &want, 1, 1e-27);
        parity_record_bytes(p, &got, sizeof got);
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
