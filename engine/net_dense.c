/* See net_dense.h. Everything is a GEMM of the backend over blocks of stacked rows; rows of a
 * product do not depend on the rows beside them, so neither does a client's number. */
#include "engine/net_dense.h"

#include <string.h>
#include "base/buf.h"
#include "engine/net_internal.h"

enum { DENSE_ROWS = 256 /* ranks stacked at a time: enough to fill a GEMM */ };

/* One module of one adapter on its way through a block. */
struct passenger {
    int32_t adapter;
    int64_t begin; /* first row in the block */
    const struct meed_adapter_module *module;
};

struct meed_net_dense {
    const struct meed_backend *be;
    const struct meed_net *net; /* shapes only, while this lives */
    struct meed_device_arena device;
    struct meed_mat *groups; /* [layers·GROUPS], data NULL where no adapter goes */
    int64_t rows;            /* of a block: the largest rank at least */
    int64_t widest_n, widest_k;
    float *left;  /* device: [rows, N] or [N, rows] */
    float *right; /* device: [rows, K] */
    float *factor;
    float *left_host, *right_host;
    struct passenger *passengers; /* [rows] */
    int32_t passenger_count;
    int64_t used; /* rows */
};

static int64_t place_of(int32_t layer, enum meed_group group)
{
    return (int64_t)layer * MEED_GROUP_COUNT + (int64_t)group;
}

static void plan(struct meed_net_dense *d, const struct meed_adapter *const *adapters,
                 int32_t count)
{
    d->rows = DENSE_ROWS;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t m = 0; m < adapters[i]->module_count; m++) {
            const struct meed_adapter_module *module = &adapters[i]->modules[m];
            enum meed_group group = meed_proj_infos[module->proj].group;
            struct meed_mat *to = &d->groups[place_of(module->layer, group)];
            to->rows = meed_group_outputs(&d->net->config, group);
            to->cols = meed_group_inputs(&d->net->config, group);
            d->rows = MEED_MAX(d->rows, module->r);
            d->widest_n = MEED_MAX(d->widest_n, module->n);
            d->widest_k = MEED_MAX(d->widest_k, module->k);
        }
    }
}

static void lay_out(struct meed_net_dense *d)
{
    for (int64_t g = 0; g < (int64_t)d->net->config.layers * MEED_GROUP_COUNT; g++) {
        if (d->groups[g].rows > 0) {
            d->groups[g] = meed_device_arena_mat(&d->device, d->groups[g].rows, d->groups[g].cols,
                                                 MEED_DTYPE_F32);
        }
    }
    d->left = meed_device_arena_take(&d->device, d->rows * d->widest_n, sizeof(float));
    d->right = meed_device_arena_take(&d->device, d->rows * d->widest_k, sizeof(float));
    d->factor = meed_device_arena_take(&d->device, 1, sizeof(float));
}

enum meed_status meed_net_dense_create(const struct meed_net *net,
                                       const struct meed_adapter *const *adapters, int32_t count,
                                       struct meed_net_dense **dense)
{
    enum meed_status st = MEED_OK;
    struct meed_net_dense *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->be = net->be;
    made->net = net;
    size_t groups = (size_t)net->config.layers * MEED_GROUP_COUNT;
    made->groups = meed_heap_alloc(groups, sizeof *made->groups);
    if (!made->groups) {
        st = MEED_NOMEM;
        goto out;
    }
    plan(made, adapters, count);
    size_t rows = (size_t)made->rows;
    size_t inner = (size_t)MEED_MAX(made->widest_k, made->widest_n) + 1;
    made->left_host = meed_heap_alloc(rows * inner, sizeof(float));
    made->right_host = meed_heap_alloc(rows * inner, sizeof(float));
    made->passengers = meed_heap_alloc(rows, sizeof *made->passengers);
    if (!made->left_host || !made->right_host || !made->passengers) {
        st = MEED_NOMEM;
        goto out;
    }
    meed_device_arena_init(&made->device, net->be);
    lay_out(made);
    MEED_TRY_OUT(meed_device_arena_reserve(&made->device));
    lay_out(made);
    *dense = made;
    made = NULL;
out:
    meed_net_dense_destroy(made);
    return st;
}

void meed_net_dense_destroy(struct meed_net_dense *dense)
{
    if (dense) {
        meed_heap_free(dense->groups);
        meed_heap_free(dense->left_host);
        meed_heap_free(dense->right_host);
        meed_heap_free(dense->passengers);
        if (dense->device.be) {
            meed_device_arena_clear(&dense->device);
        }
        meed_heap_free(dense);
    }
}

void meed_net_dense_zero(struct meed_net_dense *dense)
{
    for (int64_t g = 0; g < (int64_t)dense->net->config.layers * MEED_GROUP_COUNT; g++) {
        const struct meed_mat *mat = &dense->groups[g];
        if (mat->data) {
            dense->be->zero(dense->be, mat->data, (size_t)(mat->rows * mat->cols) * sizeof(float));
        }
    }
}

struct meed_mat meed_net_dense_group(const struct meed_net_dense *dense, int32_t layer,
                                     enum meed_group group)
{
    return dense->groups[place_of(layer, group)];
}

/* --- adapters through the block --------------------------------------------------------------- */

/* Rows of the module inside its group. */
static struct meed_mat module_rows(const struct meed_net_dense *d, int32_t layer,
                                   enum meed_proj proj)
{
    struct meed_mat group = d->groups[place_of(layer, meed_proj_infos[proj].group)];
    return meed_mat_rows(group, meed_proj_row_begin(&d->net->config, proj),
                         meed_proj_outputs(&d->net->config, proj));
}

/* group's module rows += left·right over what the block holds. */
static enum meed_status block_add(struct meed_net_dense *d, int32_t layer, enum meed_proj proj,
                                  const double *factors)
{
    const struct meed_backend *be = d->be;
    struct meed_mat to = module_rows(d, layer, proj);
    for (int32_t p = 0; p < d->passenger_count; p++) {
        const struct passenger *at = &d->passengers[p];
        const struct meed_adapter_module *m = at->module;
        double factor = factors[at->adapter] * (double)m->scale;
        for (int64_t n = 0; n < m->n; n++) {
            for (int64_t j = 0; j < m->r; j++) {
                d->left_host[n * d->used + at->begin + j] = (float)(factor * m->b[n * m->r + j]);
            }
        }
        memcpy(d->right_host + at->begin * m->k, m->a, (size_t)(m->r * m->k) * sizeof(float));
    }
    MEED_TRY(be->copy_to(be, d->left, d->left_host, (size_t)(to.rows * d->used) * sizeof(float)));
    MEED_TRY(be->copy_to(be, d->right, d->right_host, (size_t)(d->used * to.cols) * sizeof(float)));
    be->forget(be, d->right);
    be->matmul(be, MEED_MATMUL_NN,
               meed_mat_view(d->left, to.rows, d->used, d->used, MEED_DTYPE_F32),
               meed_mat_view(d->right, d->used, to.cols, to.cols, MEED_DTYPE_F32), true, to);
    be->forget(be, d->right);
    return be->sync(be);
}

/* products += s·Σ (Bᵀ·G) ∘ A of what the block holds. */
static enum meed_status block_dot(struct meed_net_dense *d, int32_t layer, enum meed_proj proj,
                                  double *products)
{
    const struct meed_backend *be = d->be;
    struct meed_mat from = module_rows(d, layer, proj);
    for (int32_t p = 0; p < d->passenger_count; p++) {
        const struct passenger *at = &d->passengers[p];
        const struct meed_adapter_module *m = at->module;
        for (int64_t n = 0; n < m->n; n++) {
            for (int64_t j = 0; j < m->r; j++) {
                d->left_host[(at->begin + j) * m->n + n] = m->b[n * m->r + j];
            }
        }
    }
    MEED_TRY(be->copy_to(be, d->left, d->left_host, (size_t)(d->used * from.rows) * sizeof(float)));
    be->matmul(be, MEED_MATMUL_NN,
               meed_mat_view(d->left, d->used, from.rows, from.rows, MEED_DTYPE_F32), from, false,
               meed_mat_view(d->right, d->used, from.cols, from.cols, MEED_DTYPE_F32));
    MEED_TRY(
        be->copy_from(be, d->right_host, d->right, (size_t)(d->used * from.cols) * sizeof(float)));
    MEED_TRY(be->sync(be));
    for (int32_t p = 0; p < d->passenger_count; p++) {
        const struct passenger *at = &d->passengers[p];
        const struct meed_adapter_module *m = at->module;
        const float *projected = d->right_host + at->begin * m->k;
        double sum = 0;
        for (int64_t i = 0; i < m->r * m->k; i++) {
            sum += (double)projected[i] * (double)m->a[i];
        }
        products[at->adapter] += (double)m->scale * sum;
    }
    return MEED_OK;
}

typedef enum meed_status block_fn(struct meed_net_dense *d, int32_t layer, enum meed_proj proj,
                                  void *user);

static enum meed_status add_block(struct meed_net_dense *d, int32_t layer, enum meed_proj proj,
                                  void *user)
{
    return block_add(d, layer, proj, user);
}

static enum meed_status dot_block(struct meed_net_dense *d, int32_t layer, enum meed_proj proj,
                                  void *user)
{
    return block_dot(d, layer, proj, user);
}

static enum meed_status block_flush(struct meed_net_dense *d, int32_t layer, enum meed_proj proj,
                                    block_fn *run, void *user)
{
    enum meed_status st = d->passenger_count > 0 ? run(d, layer, proj, user) : MEED_OK;
    d->passenger_count = 0;
    d->used = 0;
    return st;
}

/* All adapters, module place by module place: blocks hold one place of many adapters. */
static enum meed_status blocks_run(struct meed_net_dense *d,
                                   const struct meed_adapter *const *adapters, int32_t count,
                                   block_fn *run, void *user)
{
    for (int32_t layer = 0; layer < d->net->config.layers; layer++) {
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            for (int32_t i = 0; i < count; i++) {
                const struct meed_adapter_module *module =
                    meed_adapter_find(adapters[i], layer, (enum meed_proj)proj);
                if (!module) {
                    continue;
                }
                if (d->used + module->r > d->rows) {
                    MEED_TRY(block_flush(d, layer, (enum meed_proj)proj, run, user));
                }
                d->passengers[d->passenger_count++] = (struct passenger){i, d->used, module};
                d->used += module->r;
            }
            MEED_TRY(block_flush(d, layer, (enum meed_proj)proj, run, user));
        }
    }
    return MEED_OK;
}

enum meed_status meed_net_dense_add(struct meed_net_dense *dense,
                                    const struct meed_adapter *const *adapters,
                                    const double *factors, int32_t count)
{
    return blocks_run(dense, adapters, count, add_block, (void *)(uintptr_t)factors);
}

enum meed_status meed_net_dense_dot(struct meed_net_dense *dense,
                                    const struct meed_adapter *const *adapters, int32_t count,
                                    double *products)
{
    memset(products, 0, (size_t)count * sizeof *products);
    enum meed_status st = blocks_run(dense, adapters, count, dot_block, products);
    for (int32_t layer = 0; layer < dense->net->config.layers; layer++) {
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            struct meed_mat rows = module_rows(dense, layer, (enum meed_proj)proj);
            if (rows.data) {
                dense->be->forget(dense->be, rows.data);
            }
        }
    }
    return st;
}

/* --- with a network --------------------------------------------------------------------------- */

static enum meed_status check_plain(const struct meed_net *net, const struct meed_net_dense *dense)
{
    if (net->options.adapter_count != 0 || net->options.dtype != MEED_DTYPE_F32 ||
        net->options.base != MEED_BLOCK_NONE || net->be != dense->be ||
        net->config.layers != dense->net->config.layers) {
        return MEED_FAIL(MEED_ARG, "dense sums need an fp32 network without adapters, of the same "
                                   "model and backend");
    }
    return MEED_OK;
}

enum meed_status meed_net_dense_shift(struct meed_net *net, const struct meed_net *from,
                                      const struct meed_net_dense *dense, float factor)
{
    const struct meed_backend *be = net->be;
    const float one = 1.0f;
    MEED_TRY(check_plain(net, dense));
    MEED_TRY(check_plain(from, dense));
    MEED_TRY(be->copy_to(be, dense->factor, &factor, sizeof factor));
    MEED_TRY(be->copy_to(be, dense->left, &one, sizeof one));
    for (int32_t layer = 0; layer < net->config.layers; layer++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            struct meed_mat sum = dense->groups[place_of(layer, (enum meed_group)g)];
            if (!sum.data) {
                continue;
            }
            struct meed_mat to = meed_net_group_at(net, layer, (enum meed_group)g)->weight;
            struct meed_mat at = meed_net_group_at(from, layer, (enum meed_group)g)->weight;
            int64_t count = sum.rows * sum.cols;
            MEED_ASSERT(to.stride == sum.cols && at.stride == sum.cols);
            be->forget(be, to.data);
            be->lora_merge(be, meed_mat_view(at.data, 1, count, count, MEED_DTYPE_F32),
                           meed_mat_view(dense->left, 1, 1, 1, MEED_DTYPE_F32),
                           meed_mat_view(sum.data, 1, count, count, MEED_DTYPE_F32), dense->factor,
                           meed_mat_view(to.data, 1, count, count, MEED_DTYPE_F32));
        }
    }
    return be->sync(be);
}
