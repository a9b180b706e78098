/* Matrix products against float64, and the promise that a row's bits are its own.
 *
 * Goal: C = A·Bᵀ and A·B, fresh and accumulated, fp32 and bf16, dense and strided, at shapes off
 * every tile. Then each row alone, prefixes of every height and repeated calls (packed weights)
 * must give the bytes of the whole batch.
 */
#define PARITY_MATMUL(name) PARITY_RUN(name)
#include "tests/support/parity.h"

struct shape {
    int64_t m;
    int64_t n;
    int64_t k;
};
static const struct shape shapes[] = {
    {0, 8, 8},     {1, 1, 1},       {3, 5, 7},        {17, 31, 13},   {2, 1000, 24},
    {64, 64, 64},  {130, 193, 257}, {65, 96, 1032},   {33, 300, 520}, {150, 576, 200},
    {128, 64, 96}, {37, 16, 128},   {141, 2056, 104},
};

static double *reference(struct parity *p, enum meed_matmul_kind kind, struct meed_mat a,
                         struct meed_mat b, const double *start, int64_t n)
{
    const double *left = parity_values(p, a);
    const double *right = parity_values(p, b);
    double *want = parity_doubles(p, a.rows * n);
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = start ? start[i * n + j] : 0.0;
            for (int64_t k = 0; k < a.cols; k++) {
                sum += left[i * a.cols + k] *
                       (kind == MEED_MATMUL_NT ? right[j * a.cols + k] : right[k * n + j]);
            }
            want[i * n + j] = sum;
        }
    }
    return want;
}

static void shape_case(struct parity *p, struct shape s, enum meed_matmul_kind kind,
                       enum meed_dtype in, enum meed_dtype out, bool accumulate, int64_t pad)
{
    bool transposed = kind == MEED_MATMUL_NT;
    struct meed_mat a = parity_mat(p, s.m, s.k, pad, in, 1.0);
    struct meed_mat b = parity_mat(p, transposed ? s.n : s.k, transposed ? s.k : s.n, pad, in, 1.0);
    struct meed_mat c = parity_mat(p, s.m, s.n, pad, out, 1.0);
    struct meed_mat again = parity_copy(p, c);
    struct meed_mat start = parity_copy(p, c);
    const double *want = reference(p, kind, a, b, accumulate ? parity_values(p, c) : NULL, s.n);
    p->be->matmul(p->be, kind, a, b, accumulate, c);
    char what[64];
    snprintf(what, sizeof what, "matmul %s%s k %lld", transposed ? "NT" : "NN",
             accumulate ? " +=" : "", (long long)s.k);
    parity_close(p, what, c, want, close_f32_sum(s.k), 2.0);
    /* Rows alone (a few), then prefixes. */
    for (int64_t m = 0; m < s.m; m += 1 + s.m / 5) {
        p->be->matmul(p->be, kind, meed_mat_rows(a, m, 1), b, accumulate,
                      meed_mat_rows(again, m, 1));
        parity_same_rows(p, "row alone", meed_mat_rows(c, m, 1), meed_mat_rows(again, m, 1));
    }
    for (int64_t rows = 2; rows <= s.m; rows += 1 + rows / 2) {
        struct meed_mat prefix = parity_copy(p, start);
        p->be->matmul(p->be, kind, meed_mat_rows(a, s.m - rows, rows), b, accumulate,
                      meed_mat_rows(prefix, s.m - rows, rows));
        parity_same_rows(p, "rows at the end of the batch", meed_mat_rows(c, s.m - rows, rows),
                         meed_mat_rows(prefix, s.m - rows, rows));
    }
    parity_release(p);
}

static void parity_case_matmul(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        for (int kind = 0; kind < 2; kind++) {
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                int64_t pad = i % 3 == 1 ? 5 : 0;
                enum meed_matmul_kind k = (enum meed_matmul_kind)kind;
                shape_case(p, shapes[i], k, MEED_DTYPE_F32, MEED_DTYPE_F32, accumulate, pad);
                shape_case(p, shapes[i], k, MEED_DTYPE_BF16, MEED_DTYPE_F32, accumulate, pad);
                shape_case(p, shapes[i], k, MEED_DTYPE_BF16, MEED_DTYPE_BF16, accumulate, pad);
            }
        }
    }
}

/* A cached copy of a weight must follow the weight: rewritten memory gives the new product. */
static void matmul_forgets_a_rewritten_weight(void **state)
{
    (void)state;
    enum { M = 3, N = 64, K = 32, CALLS = 6 };
    struct meed_backend *be = NULL;
    assert_int_equal(meed_backend_open_cpu(NULL, NULL, &be), MEED_OK);
    float host[N * K];
    void *a = NULL;
    void *b = NULL;
    void *c = NULL;
    assert_int_equal(be->alloc(be, M * K * 4, &a), MEED_OK);
    assert_int_equal(be->alloc(be, N * K * 4, &b), MEED_OK);
    assert_int_equal(be->alloc(be, M * N * 4, &c), MEED_OK);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < N * K; i++) {
            host[i] = (float)round;
        }
        assert_int_equal(be->copy_to(be, a, host, M * K * 4), MEED_OK);
        assert_int_equal(be->copy_to(be, b, host, N * K * 4), MEED_OK);
        for (int call = 0; call < CALLS; call++) {
            be->matmul(be, MEED_MATMUL_NT, meed_mat_view(a, M, K, K, MEED_DTYPE_F32),
                       meed_mat_view(b, N, K, K, MEED_DTYPE_F32), false,
                       meed_mat_view(c, M, N, N, MEED_DTYPE_F32));
            float got = 0.0f;
            assert_int_equal(be->copy_from(be, &got, c, sizeof got), MEED_OK);
            assert_int_equal((int)got, round * round * K);
        }
    }
    be->free(be, a);
    be->free(be, b);
    be->free(be, c);
    meed_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define MEED_OP(name, text) PARITY_FAMILY_##name(name)
#include "kernels/ops.def"
#undef MEED_OP
        cmocka_unit_test(matmul_forgets_a_rewritten_weight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
