/* Log-probabilities and the gradient of the logits against float64.
 *
 * Goal: rows of any size and spread (up to logits of ±300, where a naive exp overflows), rows
 * without a target, weights, gradients in place in both dtypes, each row's bits its own.
 */
#define PARITY_XENT(name) PARITY_RUN(name)
#include "tests/support/parity.h"

#include <math.h>

static void shape_case(struct parity *p, int64_t rows, int64_t vocabulary, enum meed_dtype dtype,
                       double scale)
{
    int64_t pad = vocabulary % 8 == 0 ? 8 : 3; /* rows at multiples of 16 bytes, and at none */
    struct meed_mat logits = parity_mat(p, rows, vocabulary, pad, dtype, scale);
    int32_t targets_host[64];
    for (int64_t m = 0; m < rows; m++) {
        targets_host[m] = m % 5 == 3 ? -1 : (int32_t)((m * 37) % vocabulary);
    }
    const int32_t *targets = parity_ints(p, targets_host, rows);
    float *weights = parity_floats(p, rows + 1, 1.0);
    float *logprob = parity_floats(p, rows + 1, 1.0);
    float *again = parity_floats(p, rows + 1, 1.0);
    struct meed_mat single = parity_copy(p, logits);
    const double *values = parity_values(p, logits);
    const double *w = parity_from_floats(p, weights, rows);
    double *want = parity_doubles(p, rows * vocabulary);
    double *want_log = parity_doubles(p, rows);
    for (int64_t m = 0; m < rows; m++) {
        const double *row = values + m * vocabulary;
        double peak = row[0];
        double sum = 0.0;
        for (int64_t j = 1; j < vocabulary; j++) {
            peak = row[j] > peak ? row[j] : peak;
        }
        for (int64_t j = 0; j < vocabulary; j++) {
            sum += exp(row[j] - peak);
        }
        if (targets_host[m] < 0) {
            continue;
        }
        double lse = peak + log(sum);
        want_log[m] = row[targets_host[m]] - lse;
        for (int64_t j = 0; j < vocabulary; j++) {
            want[m * vocabulary + j] = w[m] * (exp(row[j] - lse) - (j == targets_host[m]));
        }
    }
    p->be->xent(p->be, logits, targets, NULL, logprob);
    parity_same_rows(p, "logits without weights are left alone", logits, single);
    close_check("logprob", parity_from_floats(p, logprob, rows), want_log, rows, 1e-12);
    p->be->xent(p->be, logits, targets, weights, again);
    const double *first = parity_from_floats(p, logprob, rows);
    const double *second = parity_from_floats(p, again, rows);
    parity_same("logprob with and without gradient", first, second, (size_t)rows * 8);
    parity_record_bytes(p, first, (size_t)rows * 8);
    /* lse near 300 carries an fp32 rounding of 1.5e-5, which every probability inherits. */
    parity_close(p, "dlogits", logits, want, scale > 10.0 ? 1e-8 : 1e-11, 1.1);
    for (int64_t m = 0; m < rows; m += 4) {
        p->be->xent(p->be, meed_mat_rows(single, m, 1), targets + m, weights + m, again);
        parity_same_rows(p, "row alone", meed_mat_rows(single, m, 1), meed_mat_rows(logits, m, 1));
    }
    parity_release(p);
}

static void parity_case_xent(struct parity *p)
{
    static const int64_t vocabularies[] = {1, 2, 17, 1000, 1024, 5003, 8200};
    for (size_t i = 0; i < MEED_COUNT(vocabularies); i++) {
        for (int dtype = 0; dtype < 2; dtype++) {
            shape_case(p, 0, vocabularies[i], (enum meed_dtype)dtype, 1.0);
            shape_case(p, parity_small ? 2 : 9, vocabularies[i], (enum meed_dtype)dtype, 5.0);
            int64_t rows = parity_small && vocabularies[i] > 2000 ? 2 : 50;
            shape_case(p, rows, vocabularies[i], (enum meed_dtype)dtype, 300.0);
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
