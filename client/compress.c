/* See compress.h. Carrying works module by module in double: with G = B'ᵀB' + λ and H = A'A'ᵀ + λ,
 *     eA' = G⁻¹ (B'ᵀB·eA + B'ᵀeB·A)         [r, K]
 *     eB' = (B·eA·A'ᵀ + eB·A·A'ᵀ − B'·(eA'·A'ᵀ)) H⁻¹   [N, r]
 * so E, an N × K matrix, is never formed; the cost is a few r × r × (N + K) products a module. λ is
 * a millionth of the mean diagonal: it only decides where a factor has lost rank. */
#include "client/compress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"

enum { GROWTH_MAX = 4, SHRINK_STEPS = 64 };

/* ---- carrying the residual --------------------------------------------------------------------
 */

/* c [m, n] += sign · a·b with a [m, k]; a_t: a is stored [k, m]; b_t: b is stored [n, k]. */
struct operand {
    const double *values;
    bool transposed;
};

static void multiply(struct operand a, struct operand b, int64_t m, int64_t k, int64_t n,
                     double sign, double *c)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t p = 0; p < k; p++) {
            double x = sign * (a.transposed ? a.values[p * m + i] : a.values[i * k + p]);
            for (int64_t j = 0; j < n; j++) {
                c[i * n + j] += x * (b.transposed ? b.values[j * k + p] : b.values[p * n + j]);
            }
        }
    }
}

static struct operand plain(const double *values)
{
    struct operand operand = {values, false};
    return operand;
}

static struct operand flipped(const double *values)
{
    struct operand operand = {values, true};
    return operand;
}

/* In place: the Cholesky factor of g [r, r] + λ; false where g is zero. */
static bool factorise(double *g, int64_t r)
{
    double trace = 0.0;
    for (int64_t i = 0; i < r; i++) {
        trace += g[i * r + i];
    }
    if (!(trace > 0.0)) {
        return false;
    }
    for (int64_t i = 0; i < r; i++) {
        g[i * r + i] += 1e-6 * trace / (double)r;
    }
    for (int64_t j = 0; j < r; j++) {
        for (int64_t i = j; i < r; i++) {
            double sum = g[i * r + j];
            for (int64_t p = 0; p < j; p++) {
                sum -= g[i * r + p] * g[j * r + p];
            }
            g[i * r + j] = i == j ? sqrt(fmax(sum, 1e-300)) : sum / g[j * r + j];
        }
    }
    return true;
}

/* x ← (L·Lᵀ)⁻¹ x for one vector of r entries, `stride` apart. */
static void solve(const double *l, int64_t r, double *x, int64_t stride)
{
    for (int64_t i = 0; i < r; i++) {
        for (int64_t p = 0; p < i; p++) {
            x[i * stride] -= l[i * r + p] * x[p * stride];
        }
        x[i * stride] /= l[i * r + i];
    }
    for (int64_t i = r - 1; i >= 0; i--) {
        for (int64_t p = i + 1; p < r; p++) {
            x[i * stride] -= l[p * r + i] * x[p * stride];
        }
        x[i * stride] /= l[i * r + i];
    }
}

/* The six factors of one module in double, and room for the r × r products. */
struct carry {
    int64_t k, n, r;
    double *a_old, *b_old, *a_new, *b_new, *ea, *eb; /* A-like [r, K], B-like [N, r] */
    double *x, *y;                                   /* results: [r, K], [N, r] */
    double *gram, *small;                            /* [r, r] */
    double *g, *h, *m, *rest, *way, *image;          /* [r, r]: shrinking */
};

static double *take(double **next, int64_t count)
{
    double *taken = *next;
    *next += count;
    return taken;
}

static void widen(const float *values, int64_t count, double *wide)
{
    for (int64_t i = 0; i < count; i++) {
        wide[i] = (double)values[i];
    }
}

static void carry_a(struct carry *c)
{
    int64_t k = c->k, n = c->n, r = c->r;
    multiply(flipped(c->b_new), plain(c->b_new), r, n, r, 1.0, c->gram);
    if (!factorise(c->gram, r)) {
        return;
    }
    multiply(flipped(c->b_new), plain(c->b_old), r, n, r, 1.0, c->small);
    multiply(plain(c->small), plain(c->ea), r, r, k, 1.0, c->x);
    memset(c->small, 0, (size_t)(r * r) * sizeof *c->small);
    multiply(flipped(c->b_new), plain(c->eb), r, n, r, 1.0, c->small);
    multiply(plain(c->small), plain(c->a_old), r, r, k, 1.0, c->x);
    for (int64_t j = 0; j < k; j++) {
        solve(c->gram, r, c->x + j, k);
    }
}

/* y += sign · left·(right·A'ᵀ) with left [N, r] and right [r, K]. */
static void add_rest(struct carry *c, const double *left, const double *right, double sign)
{
    memset(c->small, 0, (size_t)(c->r * c->r) * sizeof *c->small);
    multiply(plain(right), flipped(c->a_new), c->r, c->k, c->r, 1.0, c->small);
    multiply(plain(left), plain(c->small), c->n, c->r, c->r, sign, c->y);
}

static void carry_b(struct carry *c)
{
    memset(c->gram, 0, (size_t)(c->r * c->r) * sizeof *c->gram);
    multiply(plain(c->a_new), flipped(c->a_new), c->r, c->k, c->r, 1.0, c->gram);
    if (!factorise(c->gram, c->r)) {
        return;
    }
    add_rest(c, c->b_old, c->ea, 1.0);
    add_rest(c, c->eb, c->a_old, 1.0);
    add_rest(c, c->b_new, c->x, -1.0);
    for (int64_t i = 0; i < c->n; i++) {
        solve(c->gram, c->r, c->y + i * c->r, 1);
    }
}

static double dot(const double *x, const double *y, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

/* image = way·H + G·way */
static void apply_sylvester(struct carry *c)
{
    int64_t r = c->r;
    memset(c->image, 0, (size_t)(r * r) * sizeof *c->image);
    multiply(plain(c->way), plain(c->h), r, r, r, 1.0, c->image);
    multiply(plain(c->g), plain(c->way), r, r, r, 1.0, c->image);
}

/* Replaces (x, y) by the smallest pair with the same meaning. */
static void shrink(struct carry *c)
{
    int64_t r = c->r, count = r * r;
    multiply(flipped(c->b_new), plain(c->b_new), r, c->n, r, 1.0, c->g);
    multiply(plain(c->a_new), flipped(c->a_new), r, c->k, r, 1.0, c->h);
    multiply(flipped(c->b_new), plain(c->y), r, c->n, r, 1.0, c->rest);
    multiply(plain(c->x), flipped(c->a_new), r, c->k, r, -1.0, c->rest);
    memcpy(c->way, c->rest, (size_t)count * sizeof *c->way);
    double size = dot(c->rest, c->rest, count), first = size;
    for (int i = 0; i < SHRINK_STEPS && size > 1e-20 * first; i++) {
        apply_sylvester(c);
        double curvature = dot(c->way, c->image, count);
        if (!(curvature > 0.0)) {
            break;
        }
        double length = size / curvature, before = size;
        for (int64_t j = 0; j < count; j++) {
            c->m[j] += length * c->way[j];
            c->rest[j] -= length * c->image[j];
        }
        size = dot(c->rest, c->rest, count);
        for (int64_t j = 0; j < count; j++) {
            c->way[j] = c->rest[j] + size / before * c->way[j];
        }
    }
    multiply(plain(c->m), plain(c->a_new), r, r, c->k, 1.0, c->x);
    multiply(plain(c->b_new), plain(c->m), c->n, r, r, -1.0, c->y);
}

static bool all_zero(const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (values[i] != 0.0f) {
            return false;
        }
    }
    return true;
}

static enum meed_status carry_module(const struct meed_adapter_module *old_module,
                                     const struct meed_adapter_module *new_module, float *residual)
{
    struct carry c = {.k = new_module->k, .n = new_module->n, .r = new_module->r};
    int64_t a_count = c.r * c.k, b_count = c.n * c.r;
    if (all_zero(residual, a_count + b_count)) {
        return MEED_OK; /* a codec that loses nothing leaves nothing to carry */
    }
    double *block =
        meed_heap_alloc((size_t)(4 * (a_count + b_count) + 8 * c.r * c.r), sizeof *block);
    if (!block) {
        return MEED_NOMEM;
    }
    double *next = block;
    double **as[] = {&c.a_old, &c.a_new, &c.ea, &c.x}, **bs[] = {&c.b_old, &c.b_new, &c.eb, &c.y};
    for (size_t i = 0; i < MEED_COUNT(as); i++) {
        *as[i] = take(&next, a_count);
        *bs[i] = take(&next, b_count);
    }
    double **squares[] = {&c.gram, &c.small, &c.g, &c.h, &c.m, &c.rest, &c.way, &c.image};
    for (size_t i = 0; i < MEED_COUNT(squares); i++) {
        *squares[i] = take(&next, c.r * c.r);
    }
    widen(old_module->a, a_count, c.a_old);
    widen(old_module->b, b_count, c.b_old);
    widen(new_module->a, a_count, c.a_new);
    widen(new_module->b, b_count, c.b_new);
    widen(residual, a_count, c.ea);
    widen(residual + a_count, b_count, c.eb);
    carry_a(&c);
    carry_b(&c);
    shrink(&c);
    double most = GROWTH_MAX * GROWTH_MAX * (dot(c.ea, c.ea, a_count) + dot(c.eb, c.eb, b_count));
    double after = dot(c.x, c.x, a_count) + dot(c.y, c.y, b_count);
    double scale = after > most ? sqrt(most / after) : 1.0;
    for (int64_t i = 0; i < a_count + b_count; i++) {
        residual[i] = (float)(scale * (i < a_count ? c.x[i] : c.y[i - a_count]));
    }
    meed_heap_free(block);
    return MEED_OK;
}

enum meed_status meed_compress_carry(const struct meed_adapter *old_global,
                                     const struct meed_adapter *new_global, float *residual)
{
    if (!meed_adapter_same_shape(old_global, new_global)) {
        memset(residual, 0, (size_t)meed_adapter_value_count(new_global) * sizeof *residual);
        return MEED_OK;
    }
    for (int32_t i = 0; i < new_global->module_count; i++) {
        const struct meed_adapter_module *module = &new_global->modules[i];
        MEED_TRY(carry_module(&old_global->modules[i], module, residual));
        residual += module->r * (module->k + module->n);
    }
    return MEED_OK;
}

/* ---- the update -------------------------------------------------------------------------------
 */

struct workspace {
    size_t tensor_count; /* factors, and as many of a control variate */
    int64_t value_count; /* of the factors */
    struct meed_update_tensor *tensors;
    float **decoded;                        /* [tensor_count] into decoded_flat */
    char (*names)[MEED_ADAPTER_NAME_BYTES]; /* [tensor_count] */
    float *wanted;                          /* u, flat */
    float *decoded_flat;
};

static void workspace_clear(struct workspace *work)
{
    meed_heap_free(work->tensors);
    meed_heap_free(work->decoded);
    meed_heap_free(work->names);
    meed_heap_free(work->wanted);
    meed_heap_free(work->decoded_flat);
}

static enum meed_status workspace_init(struct workspace *work, const struct meed_adapter *shape,
                                       bool control)
{
    size_t parts = control ? 2 : 1, factors = 2 * (size_t)shape->module_count;
    work->value_count = meed_adapter_value_count(shape);
    size_t values = parts * (size_t)work->value_count;
    work->tensor_count = parts * factors;
    work->tensors = meed_heap_alloc(work->tensor_count, sizeof *work->tensors);
    work->decoded = meed_heap_alloc(work->tensor_count, sizeof *work->decoded);
    work->names = meed_heap_alloc(work->tensor_count, sizeof *work->names);
    work->wanted = meed_heap_alloc(values, sizeof(float));
    work->decoded_flat = meed_heap_alloc(values, sizeof(float));
    if (!work->tensors || !work->decoded || !work->names || !work->wanted || !work->decoded_flat) {
        return MEED_NOMEM;
    }
    int64_t begin = 0;
    for (size_t i = 0; i < work->tensor_count; i++) {
        const struct meed_adapter_module *module = &shape->modules[i % factors / 2];
        bool is_a = i % 2 == 0;
        struct meed_update_tensor *tensor = &work->tensors[i];
        char name[MEED_ADAPTER_NAME_BYTES];
        meed_adapter_tensor_name(module, is_a ? 'A' : 'B', name);
        snprintf(work->names[i], sizeof work->names[i], "%s%.36s",
                 i < factors ? "" : MEED_UPDATE_CONTROL_PREFIX, name);
        tensor->name = work->names[i];
        tensor->rows = (int32_t)(is_a ? module->r : module->n);
        tensor->cols = (int32_t)(is_a ? module->k : module->r);
        tensor->factor = is_a ? MEED_UPDATE_FACTOR_A : MEED_UPDATE_FACTOR_B;
        tensor->values = work->wanted + begin;
        work->decoded[i] = work->decoded_flat + begin;
        begin += (int64_t)tensor->rows * tensor->cols;
    }
    return MEED_OK;
}

static int64_t tensor_values(const struct meed_update_tensor *tensor)
{
    return (int64_t)tensor->rows * tensor->cols;
}

static bool is_trained(const struct meed_compress_job *job, const struct meed_update_tensor *tensor)
{
    uint32_t bit = tensor->factor == MEED_UPDATE_FACTOR_A ? MEED_FACTOR_A : MEED_FACTOR_B;
    return (job->trained_factors & bit) != 0;
}

/* u: trained − global + e where the factor is trained, 0 elsewhere; then the control's change. */
static void form_wanted(const struct meed_compress_job *job, const struct workspace *work,
                        const float *residual)
{
    const float *global = job->global->modules[0].a, *trained = job->trained->modules[0].a;
    for (size_t i = 0; i < work->tensor_count; i++) {
        const struct meed_update_tensor *tensor = &work->tensors[i];
        int64_t begin = tensor->values - work->wanted, factors = work->value_count;
        for (int64_t j = begin; j < begin + tensor_values(tensor) && is_trained(job, tensor); j++) {
            work->wanted[j] =
                j < factors ? trained[j] - global[j] + residual[j] : job->control[j - factors];
        }
    }
}

static void keep_residual(const struct meed_compress_job *job, const struct workspace *work,
                          float *residual)
{
    for (size_t i = 0; i < work->tensor_count; i++) {
        const struct meed_update_tensor *tensor = &work->tensors[i];
        int64_t begin = tensor->values - work->wanted;
        if (!is_trained(job, tensor) || begin >= work->value_count) {
            continue;
        }
        for (int64_t j = begin; j < begin + tensor_values(tensor); j++) {
            residual[j] = work->wanted[j] - work->decoded_flat[j];
        }
    }
    if (job->control) {
        memcpy(job->control_sent, work->decoded_flat + work->value_count,
               (size_t)work->value_count * sizeof *job->control_sent);
    }
}

enum meed_status meed_compress_update(const struct meed_compress_job *job, float *residual,
                                      struct meed_buf *bytes, struct meed_update_stats *stats)
{
    enum meed_status st = MEED_OK;
    struct workspace work = {.tensor_count = 0};
    struct meed_buf encoded;
    meed_buf_init(&encoded, (size_t)MEED_LIMIT_TRANSFER_BYTES);
    if (!meed_adapter_same_shape(job->global, job->trained)) {
        return MEED_FAIL(MEED_ARG, "the trained adapter has another shape than the global one");
    }
    MEED_TRY_OUT(workspace_init(&work, job->global, job->control != NULL));
    form_wanted(job, &work, residual);
    MEED_TRY_OUT(meed_update_encode(job->header, job->codec, work.tensors, work.tensor_count,
                                    work.decoded, &encoded, stats));
    MEED_TRY_OUT(meed_update_zstd_pack(encoded.data, encoded.size, job->codec->zstd_level, bytes));
    keep_residual(job, &work, residual);
out:
    meed_buf_clear(&encoded);
    workspace_clear(&work);
    return st;
}

/* ---- the residual's file: values, then their SHA-256 ------------------------------------------
 */

enum meed_status meed_compress_save(const float *residual, int64_t count, const char *path)
{
    enum meed_status st = MEED_OK;
    size_t size = (size_t)count * sizeof *residual;
    uint8_t digest[MEED_SHA256_BYTES];
    struct meed_buf bytes;
    meed_buf_init(&bytes, size + sizeof digest);
    meed_sha256(residual, size, digest);
    MEED_TRY_OUT(meed_buf_append(&bytes, residual, size));
    MEED_TRY_OUT(meed_buf_append(&bytes, digest, sizeof digest));
    MEED_TRY_OUT(meed_file_write_atomic(path, bytes.data, bytes.size));
out:
    meed_buf_clear(&bytes);
    return st;
}

enum meed_status meed_compress_load(const char *path, int64_t count, float *residual)
{
    enum meed_status st = MEED_OK;
    size_t size = (size_t)count * sizeof *residual;
    uint8_t digest[MEED_SHA256_BYTES];
    struct meed_buf bytes;
    meed_buf_init(&bytes, (size_t)MEED_ADAPTER_MAX_FILE_BYTES);
    MEED_TRY_OUT(meed_file_read(path, &bytes));
    if (bytes.size == size + sizeof digest) {
        meed_sha256(bytes.data, size, digest);
    }
    if (bytes.size != size + sizeof digest ||
        memcmp(bytes.data + size, digest, sizeof digest) != 0) {
        st = MEED_FAIL(MEED_INTEGRITY, "%.512s is not the residual of an adapter of %lld values",
                       path, (long long)count);
        goto out;
    }
    memcpy(residual, bytes.data, size);
out:
    meed_buf_clear(&bytes);
    return st;
}
