/* What LoRA costs: the K-extended layout against the frozen GEMM it extends.
 *
 * One linear at rank 16 in both dtypes. Forward: T = x·Aᵀ into the tail, then [x | T]·[W | s∘B]ᵀ,
 * against x·Wᵀ. Backward: dy·[W | s∘B], then dA, dB and dx, against dy·W. FLOPs alone would give
 * 1.016 at 2,048²; the usual two-pass form costs 1.08 to 1.65. The forward is checked against
 * float64 on the stored operands before it is timed. Here T is an op of its own; in a network the
 * producer of x writes it while x is in the cache.
 */
#include <math.h>
#include <stdio.h>
#include "base/buf.h"
#include "bench/harness.h"

enum { R = 16, TURNS = 31 };

struct shape {
    int64_t m, k, n;
    double forward_goal, both_goal;
};
static const struct shape smoke_shapes[] = {{96, 64, 160, 0, 0}};
static const struct shape cpu_shapes[] = {{2048, 2048, 2048, 1.05, 1.20}};
static const struct shape device_shapes[] = {
    {4096, 4096, 4096, 1.10, 1.18},  /* Llama-3-8B, q and o */
    {4096, 4096, 14336, 1.06, 1.20}, /* its gate and up */
    {4096, 2048, 8192, 1.06, 1.20},  /* Llama-3.2-1B */
    {4096, 896, 4864, 1.12, 1.40},   /* Qwen2.5-0.5B */
};

struct layer {
    const struct meed_backend *be;
    struct shape s;
    struct meed_mat x;   /* [M, K] dense */
    struct meed_mat xt;  /* [M, K+R] */
    struct meed_mat w;   /* [N, K] */
    struct meed_mat wb;  /* [N, K+R] */
    struct meed_mat a;   /* [R, K] */
    struct meed_mat y;   /* [M, N] */
    struct meed_mat dy;  /* [M, N] */
    struct meed_mat dx;  /* [M, K] */
    struct meed_mat dxt; /* [M, K+R] */
    struct meed_mat da;  /* [R, K] fp32 */
    struct meed_mat db;  /* [N, R] fp32 */
    struct meed_tail tail;
};

static enum meed_status layer_init(struct layer *layer, const struct meed_backend *be,
                                   struct shape s, enum meed_dtype dtype)
{
    struct {
        struct meed_mat *mat;
        int64_t rows, cols;
        double scale;
        enum meed_dtype dtype;
    } mats[] = {{&layer->x, s.m, s.k, 1, dtype},        {&layer->xt, s.m, s.k + R, 1, dtype},
                {&layer->w, s.n, s.k, 0.05, dtype},     {&layer->wb, s.n, s.k + R, 0.05, dtype},
                {&layer->a, R, s.k, 0.05, dtype},       {&layer->y, s.m, s.n, 0, dtype},
                {&layer->dy, s.m, s.n, 1, dtype},       {&layer->dx, s.m, s.k, 0, dtype},
                {&layer->dxt, s.m, s.k + R, 0, dtype},  {&layer->da, R, s.k, 0, MEED_DTYPE_F32},
                {&layer->db, s.n, R, 0, MEED_DTYPE_F32}};
    *layer = (struct layer){.be = be, .s = s};
    for (size_t i = 0; i < MEED_COUNT(mats); i++) {
        *mats[i].mat =
            meed_bench_mat(be, mats[i].rows, mats[i].cols, mats[i].dtype, i, mats[i].scale);
        if (!mats[i].mat->data) {
            return MEED_NOMEM;
        }
    }
    layer->tail = (struct meed_tail){.a = layer->a};
    return MEED_OK;
}

static void layer_clear(struct layer *layer)
{
    void *blocks[] = {layer->x.data,   layer->xt.data, layer->w.data,  layer->wb.data,
                      layer->a.data,   layer->y.data,  layer->dy.data, layer->dx.data,
                      layer->dxt.data, layer->da.data, layer->db.data};
    layer->be->forget(layer->be, layer->w.data);
    layer->be->forget(layer->be, layer->wb.data);
    for (size_t i = 0; i < MEED_COUNT(blocks); i++) {
        if (blocks[i]) {
            layer->be->free(layer->be, blocks[i]);
        }
    }
}

static enum meed_status frozen_forward(void *user)
{
    struct layer *l = user;
    l->be->matmul(l->be, MEED_MATMUL_NT, l->x, l->w, false, l->y);
    return l->be->sync(l->be);
}

static enum meed_status lora_forward(void *user)
{
    struct layer *l = user;
    l->be->lora_down(l->be, l->xt, l->s.k, &l->tail);
    l->be->matmul(l->be, MEED_MATMUL_NT, l->xt, l->wb, false, l->y);
    return l->be->sync(l->be);
}

static enum meed_status frozen_both(void *user)
{
    struct layer *l = user;
    MEED_TRY(frozen_forward(user));
    l->be->matmul(l->be, MEED_MATMUL_NN, l->dy, l->w, false, l->dx);
    return l->be->sync(l->be);
}

static enum meed_status lora_both(void *user)
{
    struct layer *l = user;
    struct meed_lora_slot slot = {0, l->s.n, 0, R, 1.0f, l->db.data};
    MEED_TRY(lora_forward(user));
    l->be->matmul(l->be, MEED_MATMUL_NN, l->dy, l->wb, false, l->dxt);
    l->be->lora_grad(l->be, l->dy, l->xt, l->s.k, &l->tail, &slot, 1, l->da.data, true, l->dxt);
    return l->be->sync(l->be);
}

static double exact(const struct shape *s, const float *x, const float *w, const float *a)
{
    double sum = 0;
    for (int64_t k = 0; k < s->k; k++) {
        sum += (double)x[k] * w[k];
    }
    for (int64_t j = 0; j < R; j++) {
        double t = 0;
        for (int64_t k = 0; k < s->k; k++) {
            t += (double)x[k] * a[j * s->k + k];
        }
        sum += t * w[s->k + j];
    }
    return sum;
}

/* y of a few rows and columns against float64 on the stored operands. */
static enum meed_status check_forward(struct layer *l)
{
    const struct shape *s = &l->s;
    const struct meed_mat mats[] = {l->xt, l->wb, l->a, l->y};
    float *host[MEED_COUNT(mats)] = {NULL};
    double worst = 0, scale = 0;
    enum meed_status st = MEED_OK;
    MEED_TRY(lora_forward(l));
    for (size_t i = 0; i < MEED_COUNT(mats); i++) {
        int64_t count = mats[i].rows * mats[i].cols;
        host[i] = meed_heap_alloc((size_t)count, sizeof(float));
        if (!host[i]) {
            st = MEED_NOMEM;
            goto out;
        }
        MEED_TRY_OUT(meed_bench_download(l->be, mats[i].data, count, mats[i].dtype, host[i]));
    }
    for (int64_t row = 0; row < s->m; row += 511) {
        for (int64_t n = 0; n < s->n; n += 509) {
            double want = exact(s, host[0] + row * (s->k + R), host[1] + n * (s->k + R), host[2]);
            worst = fmax(worst, fabs(want - (double)host[3][row * s->n + n]));
            scale = fmax(scale, fabs(want));
        }
    }
    double bound = l->y.dtype == MEED_DTYPE_F32 ? 1e-5 : 1e-2; /* rounding of sums; of T and y */
    if (!(worst <= bound * scale)) {
        st = MEED_FAIL(MEED_NUMERIC, "LoRA forward in %s is off by %g of %g",
                       meed_dtype_name(l->y.dtype), worst, scale);
    }
out:
    for (size_t i = 0; i < MEED_COUNT(mats); i++) {
        meed_heap_free(host[i]);
    }
    return st;
}

static enum meed_status bench_shape(struct meed_bench_machine *machine, struct shape s,
                                    enum meed_dtype dtype)
{
    struct layer layer;
    struct meed_bench_contestant forward[] = {{"frozen", frozen_forward, &layer},
                                              {"lora", lora_forward, &layer}};
    struct meed_bench_contestant both[] = {{"frozen", frozen_both, &layer},
                                           {"lora", lora_both, &layer}};
    struct meed_bench_result result;
    char name[96], label[48];
    int turns = machine->smoke ? 1 : TURNS;
    enum meed_status st = MEED_OK;
    MEED_TRY_OUT(layer_init(&layer, machine->be, s, dtype));
    MEED_TRY_OUT(check_forward(&layer));
    MEED_TRY_OUT(meed_bench_race(forward, 2, turns, &result));
    snprintf(label, sizeof label, "%s %lldx%lld", meed_dtype_name(dtype), (long long)s.n,
             (long long)s.k);
    snprintf(name, sizeof name, "%s frozen GEMM", label);
    meed_bench_row("lora", name,
                   2e-9 * (double)s.m * (double)s.n * (double)s.k / result.median_s[0], "GFLOP/s",
                   0, '>');
    snprintf(name, sizeof name, "%s LoRA forward / frozen GEMM", label);
    meed_bench_row("lora", name, result.ratio[1], "x", s.forward_goal, '<');
    MEED_TRY_OUT(meed_bench_race(both, 2, turns / 2 | 1, &result));
    snprintf(name, sizeof name, "%s LoRA forward+backward / two frozen", label);
    meed_bench_row("lora", name, result.ratio[1], "x", s.both_goal, '<');
out:
    layer_clear(&layer);
    return st;
}

enum meed_status meed_suite_lora(struct meed_bench_machine *machine)
{
    bool host = machine->be->host_memory;
    const struct shape *shapes = machine->smoke ? smoke_shapes : host ? cpu_shapes : device_shapes;
    size_t count = machine->smoke || host ? 1 : MEED_COUNT(device_shapes);
    meed_bench_heading("lora", "a linear N x K with rank 16 against the frozen one");
    for (size_t i = 0; i < count; i++) {
        MEED_TRY(bench_shape(machine, shapes[i], MEED_DTYPE_BF16));
        if (host) {
            MEED_TRY(bench_shape(machine, shapes[i], MEED_DTYPE_F32));
        }
    }
    return MEED_OK;
}
