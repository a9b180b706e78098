/* Stack or merge: the cost model behind MEED_PATH_AUTO.
 *
 * Both paths pay the base forward; what differs is the rest. Per coalition of T rows, with R the
 * stacked rank of a linear group, K inputs, N outputs and N_lin weights in all groups:
 *
 *   stack   T · Σ 2R(K + N) FLOPs, at the rate of a GEMM
 *   merge   Σ_modules 2rKN FLOPs at the rate of a rank-r update, plus `passes` over 4·N_lin bytes:
 *           read W, write W', and what the GEMM backend does before W' is used (oneDNN packs it:
 *           read and write once more)
 *
 * so merging wins when a coalition scores more tokens than the crossover T*, the shape of formula
 * of performance models for accelerators. Coefficients are rates of one thread; both paths use all
 * threads alike, so the ratio decides and the number of threads does not. The answer may be wrong
 * near T*, where by definition it costs nothing to be wrong.
 */
#include "engine/coalition_internal.h"

#include <math.h>

/* Factors of a stack, or tails of one batch, beyond which adapters are streamed instead. */
static const double stack_bytes_most = 256.0 * (1 << 20);

struct rates {
    double gemm_flops;   /* per second */
    double update_flops; /* of lora_merge: rank-r updates of a matrix */
    double bytes;        /* per second, streaming */
    double passes;
};

/* CPU: fp32, one AVX-512 core. Device: bf16 tensor cores and HBM of an H100-class part. */
static const struct rates cpu_rates = {60e9, 10e9, 8e9, 4};
static const struct rates device_rates = {800e12, 200e12, 3e12, 3};

static double group_rank(const struct meed_coalition *c, int32_t layer, enum meed_group group)
{
    int64_t rank = 0;
    for (int32_t slot = 0; slot < c->slot_count; slot++) {
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            if (meed_proj_infos[proj].group == group) {
                const struct meed_adapter_module *module =
                    meed_adapter_find(c->slots[slot], layer, (enum meed_proj)proj);
                rank += module ? module->r : 0;
            }
        }
    }
    return (double)((rank + 7) / 8 * 8);
}

struct coalition_cost meed_coalition_plan_cost(const struct meed_coalition *coalition,
                                               int64_t tokens, int32_t coalitions)
{
    const struct meed_model_config *config = &coalition->checkpoint->config;
    const struct rates *rates = coalition->be->host_memory ? &cpu_rates : &device_rates;
    double stack_flops = 0;
    double update_flops = 0;
    double weights = 0;
    for (int32_t layer = 0; layer < config->layers; layer++) {
        for (int group = 0; group < MEED_GROUP_COUNT; group++) {
            double inputs = (double)meed_group_inputs(config, (enum meed_group)group);
            double outputs = (double)meed_group_outputs(config, (enum meed_group)group);
            double rank = group_rank(coalition, layer, (enum meed_group)group);
            stack_flops += 2 * rank * (inputs + outputs);
            weights += inputs * outputs;
        }
    }
    for (int32_t slot = 0; slot < coalition->slot_count; slot++) {
        for (int32_t i = 0; i < coalition->slots[slot]->module_count; i++) {
            const struct meed_adapter_module *module = &coalition->slots[slot]->modules[i];
            update_flops += 2.0 * (double)module->r * (double)module->k * (double)module->n;
        }
    }
    double weight_bytes = weights * (double)meed_dtype_bytes(coalition->options.dtype);
    double second_copy = 2 * weight_bytes / rates->bytes / MEED_MAX(coalitions, 1);
    return (struct coalition_cost){
        .stack = stack_flops * (double)tokens / rates->gemm_flops,
        .merge = update_flops / rates->update_flops + rates->passes * weight_bytes / rates->bytes +
                 second_copy,
    };
}

/* Bytes of the stack's factors, and of a training network's tails per row. */
static double stack_bytes(const struct meed_coalition *c, double *per_row)
{
    const struct meed_model_config *config = &c->checkpoint->config;
    double factors = 0;
    *per_row = 0;
    for (int32_t layer = 0; layer < config->layers; layer++) {
        for (int group = 0; group < MEED_GROUP_COUNT; group++) {
            double rank = group_rank(c, layer, (enum meed_group)group);
            factors += rank * (double)(meed_group_inputs(config, (enum meed_group)group) +
                                       meed_group_outputs(config, (enum meed_group)group));
            *per_row += rank;
        }
    }
    double bytes = (double)meed_dtype_bytes(c->options.dtype);
    *per_row *= bytes;
    return factors * bytes;
}

bool meed_coalition_streams(const struct meed_coalition *coalition)
{
    double per_row;
    return coalition->path == MEED_PATH_MERGE && coalition->options.dtype == MEED_DTYPE_F32 &&
           coalition->options.base == MEED_BLOCK_NONE &&
           (coalition->options.streamed || stack_bytes(coalition, &per_row) > stack_bytes_most);
}

/* A backward pass is two forwards. The stack pays its tails in all three; projection pays one GEMM
 * dyᵀ·x a pass for the weights' gradient and, for every client and group, Bᵀ·G. */
struct coalition_cost meed_coalition_slope_cost(const struct meed_coalition *coalition,
                                                int64_t tokens, int32_t node_count, int32_t groups)
{
    const struct meed_model_config *config = &coalition->checkpoint->config;
    const struct rates *rates = coalition->be->host_memory ? &cpu_rates : &device_rates;
    double per_row, tails = 0, weights = 0, projections = 0;
    for (int32_t layer = 0; layer < config->layers; layer++) {
        for (int group = 0; group < MEED_GROUP_COUNT; group++) {
            double inputs = (double)meed_group_inputs(config, (enum meed_group)group);
            double outputs = (double)meed_group_outputs(config, (enum meed_group)group);
            tails += 2 * group_rank(coalition, layer, (enum meed_group)group) * (inputs + outputs);
            weights += 2 * inputs * outputs;
        }
    }
    for (int32_t slot = 0; slot < coalition->slot_count; slot++) {
        for (int32_t i = 0; i < coalition->slots[slot]->module_count; i++) {
            const struct meed_adapter_module *module = &coalition->slots[slot]->modules[i];
            projections += 2.0 * (double)module->r * (double)module->k * (double)module->n;
        }
    }
    double passes = (double)tokens * node_count;
    bool fits = stack_bytes(coalition, &per_row) <= stack_bytes_most &&
                per_row * coalition->options.batch_tokens <= stack_bytes_most;
    return (struct coalition_cost){
        .stack = fits ? 3 * tails * passes / rates->gemm_flops : INFINITY,
        .merge = (weights * passes + (groups + 1) * projections) / rates->gemm_flops +
                 node_count * groups * rates->passes * weights * 2 / rates->bytes,
    };
}

enum meed_coalition_path meed_coalition_slope_path(const struct meed_coalition *coalition,
                                                   int64_t tokens, int32_t node_count,
                                                   int32_t groups)
{
    if (coalition->path != MEED_PATH_AUTO) {
        return coalition->path;
    }
    if (coalition->options.base != MEED_BLOCK_NONE) {
        return MEED_PATH_STACK;
    }
    struct coalition_cost cost = meed_coalition_slope_cost(coalition, tokens, node_count, groups);
    return cost.merge < cost.stack ? MEED_PATH_MERGE : MEED_PATH_STACK;
}

enum meed_coalition_path meed_coalition_path_of(const struct meed_coalition *coalition,
                                                int64_t tokens_per_coalition, int32_t coalitions)
{
    if (coalition->path != MEED_PATH_AUTO) {
        return coalition->path;
    }
    if (coalition->options.base != MEED_BLOCK_NONE) {
        return MEED_PATH_STACK;
    }
    struct coalition_cost cost =
        meed_coalition_plan_cost(coalition, tokens_per_coalition, coalitions);
    return cost.merge < cost.stack ? MEED_PATH_MERGE : MEED_PATH_STACK;
}
