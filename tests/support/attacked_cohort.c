/* See attacked_cohort.h. */
#include "tests/support/attacked_cohort.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/rng.h"

static const double step_a = 0.01, step_b = 0.02, shared_part = 0.8;
static const double module_spread = 0.15, client_spread = 0.3;

static void must(enum meed_status st)
{
    if (st != MEED_OK) {
        fprintf(stderr, "attacked_cohort: %s: %s\n", meed_status_name(st), meed_last_error());
        abort();
    }
}

static struct meed_adapter *copy_of(const struct meed_adapter *from)
{
    struct meed_adapter *made = NULL;
    must(meed_adapter_clone(from, &made));
    return made;
}

/* adds size · normal to a factor; the stream's name and number make the draw. */
static void add_noise(float *values, int64_t count, double size, uint64_t seed, const char *name,
                      uint64_t stream)
{
    struct meed_rng rng = meed_rng_stream(seed, name, stream);
    for (int64_t i = 0; i < count; i++) {
        values[i] += (float)(size * meed_rng_normal(&rng));
    }
}

struct step {
    uint64_t seed, own; /* of the cohort, of the client */
    double shared, noise, a, b;
};

static void take_step(struct meed_adapter *adapter, const struct step *step)
{
    struct meed_rng rng = meed_rng_stream(step->seed, "sizes", step->own);
    double whole = exp(client_spread * meed_rng_normal(&rng));
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_adapter_module *module = &adapter->modules[m];
        double size = whole * exp(module_spread * meed_rng_normal(&rng));
        int64_t a = module->r * module->k, b = module->n * module->r;
        uint64_t at = (uint64_t)m;
        add_noise(module->a, a, size * step->a * step->shared, step->seed, "shared A", at);
        add_noise(module->b, b, size * step->b * step->shared, step->seed, "shared B", at);
        at += 1000 * (step->own + 1);
        add_noise(module->a, a, size * step->a * step->noise, step->seed, "own A", at);
        add_noise(module->b, b, size * step->b * step->noise, step->seed, "own B", at);
    }
}

/* What `to` did to B since `from`, times m, on A as it stands in `from`. */
static void stretch(struct meed_adapter *to, const struct meed_adapter *from, double by)
{
    for (int32_t m = 0; m < to->module_count; m++) {
        struct meed_adapter_module *module = &to->modules[m];
        const struct meed_adapter_module *start = &from->modules[m];
        for (int64_t i = 0; i < module->n * module->r; i++) {
            module->b[i] = (float)(start->b[i] + by * ((double)module->b[i] - start->b[i]));
        }
        for (int64_t i = 0; i < module->r * module->k; i++) {
            module->a[i] = start->a[i];
        }
    }
}

/* The unit vector that is longest under B, by power iteration on BᵀB. */
static void top_direction(const struct meed_adapter_module *module, double *v)
{
    double next[64];
    for (int64_t j = 0; j < module->r; j++) {
        v[j] = 1.0 / sqrt((double)module->r);
    }
    for (int round = 0; round < 100; round++) {
        double norm = 0.0;
        for (int64_t j = 0; j < module->r; j++) {
            next[j] = 0.0;
        }
        for (int64_t i = 0; i < module->n; i++) {
            const float *row = module->b + i * module->r;
            double dot = 0.0;
            for (int64_t j = 0; j < module->r; j++) {
                dot += row[j] * v[j];
            }
            for (int64_t j = 0; j < module->r; j++) {
                next[j] += dot * row[j];
            }
        }
        for (int64_t j = 0; j < module->r; j++) {
            norm += next[j] * next[j];
        }
        for (int64_t j = 0; j < module->r; j++) {
            v[j] = next[j] / sqrt(norm);
        }
    }
}

/* B' = B (I − 2 v vᵀ) */
static void mirror(struct meed_adapter *adapter)
{
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_adapter_module *module = &adapter->modules[m];
        double v[64];
        top_direction(module, v);
        for (int64_t i = 0; i < module->n; i++) {
            float *row = module->b + i * module->r;
            double dot = 0.0;
            for (int64_t j = 0; j < module->r; j++) {
                dot += row[j] * v[j];
            }
            for (int64_t j = 0; j < module->r; j++) {
                row[j] = (float)(row[j] - 2.0 * dot * v[j]);
            }
        }
    }
}

static void swell(struct meed_adapter *client, const struct meed_adapter *global)
{
    struct meed_adapter_module *module = &client->modules[client->module_count - 1];
    const struct meed_adapter_module *start = &global->modules[client->module_count - 1];
    for (int64_t i = 0; i < module->n * module->r; i++) {
        module->b[i] = start->b[i] + 5.0f * (module->b[i] - start->b[i]);
    }
}

static struct meed_adapter *attacker_of(enum attacked_kind kind, const struct attacked_cohort *in,
                                        uint64_t seed, uint64_t own)
{
    double whole = sqrt(1.0 + shared_part * shared_part);
    struct step honest = {seed, own, shared_part, 1.0, step_a, step_b};
    struct step noise = {seed, own, 0.0, whole, step_a, step_b};
    struct step little = {seed, own, 0.0, 0.1 * whole, 0.0, step_b};
    struct step leader = {seed, 5000, shared_part, 1.0, step_a, step_b};
    struct meed_adapter *made = copy_of(in->global);
    if (kind == ATTACKED_ZERO) {
        return made;
    }
    if (kind == ATTACKED_REPLAY) {
        for (int32_t m = 0; m < made->module_count; m++) {
            struct meed_adapter_module *module = &made->modules[m];
            for (int64_t i = 0; i < module->n * module->r; i++) {
                module->b[i] += in->global->modules[m].b[i] - in->base->modules[m].b[i];
            }
        }
        take_step(made, &little);
        return made;
    }
    take_step(made, kind == ATTACKED_RANDOM      ? &noise
                    : kind == ATTACKED_DUPLICATE ? &leader
                                                 : &honest);
    if (kind == ATTACKED_FLIP || kind == ATTACKED_SCALE) {
        stretch(made, in->global, kind == ATTACKED_FLIP ? -1.0 : 10.0);
    } else if (kind == ATTACKED_DUPLICATE) {
        take_step(made, &little);
    } else if (kind == ATTACKED_GAP) {
        mirror(made);
    } else if (kind == ATTACKED_SWELL) {
        swell(made, in->global);
    }
    return made;
}

struct attacked_cohort attacked_cohort_make(enum attacked_kind kind, int32_t count, uint64_t seed)
{
    struct meed_model_config model = {.hidden = 24,
                                      .ffn = 40,
                                      .layers = 3,
                                      .heads = 2,
                                      .kv_heads = 2,
                                      .head_dim = 12,
                                      .vocab = 32,
                                      .max_positions = 64};
    struct meed_lora_config lora = {.rank = 4,
                                    .alpha = 8,
                                    .targets = 1u << MEED_PROJ_Q | 1u << MEED_PROJ_UP |
                                               1u << MEED_PROJ_DOWN};
    struct attacked_cohort cohort = {.count = count};
    struct step before = {seed, 9000, 0.0, 4.0, 0.0, step_b},
                last = {seed, 9001, 0.5, 0.6, 0.0, step_b};
    must(meed_adapter_create(&model, &lora, &cohort.base));
    meed_adapter_init(cohort.base, seed);
    take_step(cohort.base, &before);
    cohort.global = copy_of(cohort.base);
    take_step(cohort.global, &last);
    cohort.past = (struct meed_step_past){cohort.base, NULL, 0};
    cohort.clients = calloc((size_t)count, sizeof *cohort.clients);
    cohort.attacker = calloc((size_t)count, sizeof *cohort.attacker);
    if (!cohort.clients || !cohort.attacker) {
        abort();
    }
    for (int32_t i = 0; i < count; i++) {
        cohort.attacker[i] = kind != ATTACKED_NONE && i % 5 == 3;
        cohort.clients[i] =
            attacker_of(cohort.attacker[i] ? kind : ATTACKED_NONE, &cohort, seed, (uint64_t)i);
    }
    return cohort;
}

void attacked_cohort_free(struct attacked_cohort *cohort)
{
    for (int32_t i = 0; i < cohort->count; i++) {
        meed_adapter_destroy(cohort->clients[i]);
    }
    meed_adapter_destroy(cohort->base);
    meed_adapter_destroy(cohort->global);
    free(cohort->clients);
    free(cohort->attacker);
}

const char *attacked_cohort_name(enum attacked_kind kind)
{
    static const char *const names[ATTACKED_COUNT] = {
        "none", "flip", "scale", "random", "replay", "zero", "duplicate", "gap", "swell"};
    return names[kind];
}
