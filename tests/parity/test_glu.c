/* Gated linear units, forward (with the tail) and backward, against float64.
 *
 * Goal: SwiGLU and GeGLU, the latter from its definition with tanh, over a wide range of g, the
 * fused tail equal to lora_down's bits, and the gradient by the product rule, in place and apart.
 */
#define PARITY_GLU(name) PARITY_RUN(name)
#include "tests/support/parity.h"

#include <math.h>

struct shape {
    int64_t m;
    int64_t f;
    int64_t r;
};
static const struct shape shapes[] = {{0, 5, 0},  {1, 1, 1},     {3, 7, 8},   {35, 100, 5},
                                      {9, 33, 0}, {66, 528, 24}, {65, 77, 40}};

/* Rows at multiples of 16 bytes, where F allows it, or at odd places. */
static int64_t row_pad(struct shape s, int64_t odd)
{
    return s.f % 8 ? odd : 8;
}

/* act(g) and, where wanted, its derivative. */
static double activation(enum meed_glu act, double g, double *slope)
{
    if (act == MEED_GLU_SILU) {
        double sigmoid = 1.0 / (1.0 + exp(-g));
        *slope = sigmoid * (1.0 + g * (1.0 - sigmoid));
        return g * sigmoid;
    }
    const double root = sqrt(2.0 / 3.14159265358979323846);
    double bend = tanh(root * (g + 0.044715 * g * g * g));
    double inner = root * (1.0 + 3.0 * 0.044715 * g * g);
    *slope = 0.5 * (1.0 + bend) + 0.5 * g * (1.0 - bend * bend) * inner;
    return 0.5 * g * (1.0 + bend);
}

static void fwd_shape(struct parity *p, struct shape s, enum meed_glu act, enum meed_dtype dtype,
                      double scale)
{
    struct meed_mat gu = parity_mat(p, s.m, 2 * s.f, row_pad(s, 1), dtype, scale);
    struct meed_mat out = parity_mat(p, s.m, s.f + s.r, row_pad(s, 2), dtype, 1.0);
    struct meed_mat a = parity_mat(p, s.r, s.f, 0, dtype, 1.0);
    struct meed_tail tail = {a, NULL, NULL, 0.0f, 0};
    p->be->glu_fwd(p->be, act, gu, &tail, out);
    const double *values = parity_values(p, gu);
    double *want = parity_doubles(p, s.m * s.f);
    for (int64_t m = 0; m < s.m; m++) {
        for (int64_t f = 0; f < s.f; f++) {
            double slope = 0.0;
            double gate = activation(act, values[m * 2 * s.f + f], &slope);
            want[m * s.f + f] = gate * values[m * 2 * s.f + s.f + f];
        }
    }
    parity_close(p, "glu h", meed_mat_cols(out, 0, s.f), want, 1e-13, 1.05);
    struct meed_mat again = parity_copy(p, out);
    p->be->zero(p->be, again.data, 0);
    p->be->lora_down(p->be, again, s.f, &tail);
    parity_same_rows(p, "fused and unfused tail", out, again);
    for (int64_t m = 0; m < s.m; m += 5) {
        struct meed_mat row = parity_mat(p, 1, s.f + s.r, 0, dtype, 1.0);
        p->be->glu_fwd(p->be, act, meed_mat_rows(gu, m, 1), &tail, row);
        parity_same_rows(p, "row alone", row, meed_mat_rows(out, m, 1));
    }
    parity_record(p, out);
    parity_release(p);
}

static void parity_case_glu_fwd(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        for (int kind = 0; kind < 4; kind++) {
            enum meed_glu act = kind < 2 ? MEED_GLU_SILU : MEED_GLU_GELU_TANH;
            enum meed_dtype dtype = kind % 2 ? MEED_DTYPE_BF16 : MEED_DTYPE_F32;
            fwd_shape(p, shapes[i], act, dtype, 1.0);
            fwd_shape(p, shapes[i], act, dtype, 100.0);
        }
    }
}

static void bwd_shape(struct parity *p, struct shape s, enum meed_glu act, enum meed_dtype dtype)
{
    struct meed_mat gu = parity_mat(p, s.m, 2 * s.f, row_pad(s, 1), dtype, 4.0);
    struct meed_mat dout = parity_mat(p, s.m, s.f, s.r, dtype, 1.0);
    struct meed_mat dgu = parity_mat(p, s.m, 2 * s.f, 0, dtype, 1.0);
    const double *values = parity_values(p, gu);
    const double *grad = parity_values(p, dout);
    double *want = parity_doubles(p, s.m * 2 * s.f);
    for (int64_t m = 0; m < s.m; m++) {
        for (int64_t f = 0; f < s.f; f++) {
            double slope = 0.0;
            double gate = activation(act, values[m * 2 * s.f + f], &slope);
            double dh = grad[m * s.f + f];
            want[m * 2 * s.f + f] = dh * values[m * 2 * s.f + s.f + f] * slope;
            want[m * 2 * s.f + s.f + f] = dh * gate;
        }
    }
    p->be->glu_bwd(p->be, act, dout, gu, dgu);
    parity_close(p, "glu dgu", dgu, want, 1e-13, 1.05);
    p->be->glu_bwd(p->be, act, dout, gu, gu);
    parity_same_rows(p, "in place", gu, dgu);
    parity_release(p);
}

static void parity_case_glu_bwd(struct parity *p)
{
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        bwd_shape(p, shapes[i], MEED_GLU_SILU, MEED_DTYPE_F32);
        bwd_shape(p, shapes[i], MEED_GLU_SILU, MEED_DTYPE_BF16);
        bwd_shape(p, shapes[i], MEED_GLU_GELU_TANH, MEED_DTYPE_F32);
        bwd_shape(p, shapes[i], MEED_GLU_GELU_TANH, MEED_DTYPE_BF16);
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
