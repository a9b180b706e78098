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
