/* Attacks on what a client sends (attack.h), in the factors, since those are what travels. */
#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "base/rng.h"
#include "evaluation/attack.h"

/* The factor A (half 0) or B of module m. */
static float *factor(const struct meed_adapter *adapter, int32_t m, int half, int64_t *count)
{
    const struct meed_adapter_module *module = &adapter->modules[m];
    *count = half ? module->n * module->r : module->r * module->k;
    return half ? module->b : module->a;
}

/* Solves X·(A Aᵀ) = C for X [r, r] in place of C, A [r, k] of full row rank, by Cholesky; gram [r,
 * r] is work space. A direction of A that is (nearly) zero counts for nothing. */
static void solve_gram(const struct meed_adapter_module *module, double *gram, double *c)
{
    int64_t r = module->r;
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0.0;
            for (int64_t x = 0; x < module->k; x++) {
                sum += (double)module->a[i * module->k + x] * (double)module->a[j * module->k + x];
            }
            for (int64_t x = 0; x < j; x++) {
                sum -= gram[i * r + x] * gram[j * r + x];
            }
            gram[i * r + j] = i == j                ? sqrt(fmax(sum, 0.0))
                              : gram[j * r + j] > 0 ? sum / gram[j * r + j]
                                                    : 0.0;
        }
    }
    for (int64_t row = 0; row < r; row++) {
        double *x = c + row * r;
        for (int64_t i = 0; i < r; i++) {
            for (int64_t j = 0; j < i; j++) {
                x[i] -= gram[i * r + j] * x[j];
            }
            x[i] = gram[i * r + i] > 1e-12 ? x[i] / gram[i * r + i] : 0.0;
        }
        for (int64_t i = r; i-- > 0;) {
            for (int64_t j = i + 1; j < r; j++) {
                x[i] -= gram[j * r + i] * x[j];
            }
            x[i] = gram[i * r + i] > 1e-12 ? x[i] / gram[i * r + i] : 0.0;
        }
    }
}

/* out := x with B' = x_part·B_x + y_part·B_y·P, where P = A_y A_xᵀ (A_x A_xᵀ)⁻¹. work [2·r·r]. */
static void combine_module(const struct meed_adapter_module *x, double x_part,
                           const struct meed_adapter_module *y, double y_part, double *work,
                           struct meed_adapter_module *out)
{
    int64_t r = x->r, k = x->k;
    double *p = work, row[MEED_ADAPTER_MAX_RANK];
    for (int64_t i = 0; i < r * r; i++) {
        p[i] = 0.0;
        for (int64_t c = 0; c < k; c++) {
            p[i] += (double)y->a[i / r * k + c] * (double)x->a[i % r * k + c];
        }
    }
    solve_gram(x, work + r * r, p);
    for (int64_t n = 0; n < x->n; n++) {
        for (int64_t j = 0; j < r; j++) {
            row[j] = x_part * (double)x->b[n * r + j];
            for (int64_t i = 0; i < r; i++) {
                row[j] += y_part * (double)y->b[n * r + i] * p[i * r + j];
            }
        }
        for (int64_t j = 0; j < r; j++) {
            out->b[n * r + j] = (float)row[j];
        }
    }
    memmove(out->a, x->a, (size_t)(r * k) * sizeof *out->a);
}

/* out ≈ x_part·(B_x A_x) + y_part·(B_y A_y), the nearest that x's own A can say; out may be x. */
static enum meed_status combine(const struct meed_adapter *x, double x_part,
                                const struct meed_adapter *y, double y_part,
                                struct meed_adapter *out)
{
    size_t rank = (size_t)MEED_MAX(out->lora.rank, 1);
    double *work = meed_heap_alloc(2 * rank * rank, sizeof *work);
    if (!work) {
        return MEED_NOMEM;
    }
    for (int32_t m = 0; m < out->module_count; m++) {
        combine_module(&x->modules[m], x_part, &y->modules[m], y_part, work, &out->modules[m]);
    }
    meed_heap_free(work);
    return MEED_OK;
}

/* trained := the global model and `multiple` times what was learned. */
static enum meed_status rescale(const struct meed_adapter *global, double multiple,
                                struct meed_adapter *trained)
{
    return combine(trained, multiple, global, 1.0 - multiple, trained);
}

static void copy(const struct meed_adapter *from, struct meed_adapter *to)
{
    for (int32_t m = 0; m < to->module_count; m++) {
        for (int half = 0; half < 2; half++) {
            int64_t count = 0;
            const float *values = factor(from, m, half, &count);
            memmove(factor(to, m, half, &count), values, (size_t)count * sizeof *values);
        }
    }
}

static double rms_between(const float *x, const float *y, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = (double)x[i] - (y ? (double)y[i] : 0.0);
        sum += d * d;
    }
    return count > 0 ? sqrt(sum / (double)count) : 0.0;
}

/* Adds noise of `deviations` times each factor's change from `from`. */
static void add_noise(const struct meed_attack_member *member, int32_t round,
                      const struct meed_adapter *from, double deviations, struct meed_adapter *out)
{
    struct meed_rng rng = meed_rng_stream(member->seed, "attack noise", (uint64_t)round);
    for (int32_t m = 0; m < out->module_count; m++) {
        for (int half = 0; half < 2; half++) {
            int64_t count = 0;
            const float *start = factor(from, m, half, &count);
            float *values = factor(out, m, half, &count);
            double sigma = deviations * rms_between(values, start, count);
            for (int64_t i = 0; i < count && sigma > 0.0; i++) {
                values[i] = (float)((double)values[i] + sigma * meed_rng_normal(&rng));
            }
        }
    }
}

/* A free-rider's guess of an update: B moves by noise of the size of the start's A. */
static void random_update(const struct meed_attack_member *member, int32_t round,
                          struct meed_adapter *out)
{
    struct meed_rng rng = meed_rng_stream(member->seed, "attack random", (uint64_t)round);
    for (int32_t m = 0; m < out->module_count; m++) {
        int64_t a_count = 0, b_count = 0;
        const float *a = factor(out, m, 0, &a_count);
        float *b = factor(out, m, 1, &b_count);
        double sigma = member->strength * rms_between(a, NULL, a_count);
        for (int64_t i = 0; i < b_count; i++) {
            b[i] = (float)((double)b[i] + sigma * meed_rng_normal(&rng));
        }
    }
}

/* ---- gap ------------------------------------------------------------------------------------- */

/* The unit vector that ‖B v‖ is largest for, by power iteration on BᵀB without forming it;
 * next [r] is work space. */
static void top_direction(const struct meed_adapter_module *module, struct meed_rng *rng, double *v,
                          double *next)
{
    enum { ITERATIONS = 60 };
    int64_t r = module->r;
    for (int64_t j = 0; j < r; j++) {
        v[j] = meed_rng_normal(rng);
    }
    for (int t = 0; t < ITERATIONS; t++) {
        double norm = 0.0;
        memset(next, 0, (size_t)r * sizeof *next);
        for (int64_t i = 0; i < module->n; i++) {
            double dot = 0.0;
            for (int64_t j = 0; j < r; j++) {
                dot += (double)module->b[i * r + j] * v[j];
            }
            for (int64_t j = 0; j < r; j++) {
                next[j] += dot * (double)module->b[i * r + j];
            }
        }
        for (int64_t j = 0; j < r; j++) {
            norm += next[j] * next[j];
        }
        for (int64_t j = 0; j < r && norm > 0.0; j++) {
            v[j] = next[j] / sqrt(norm);
        }
    }
}

/* v made orthogonal to the first `count` rows of basis and of length 1. */
static void orthogonalise(const double *basis, int64_t count, int64_t r, double *v)
{
    for (int64_t i = 0; i <= count; i++) {
        double dot = 0.0, norm = 0.0;
        for (int64_t j = 0; j < r && i < count; j++) {
            dot += basis[i * r + j] * v[j];
        }
        for (int64_t j = 0; j < r; j++) {
            v[j] -= i < count ? dot * basis[i * r + j] : 0.0;
            norm += v[j] * v[j];
        }
        for (int64_t j = 0; j < r && i == count && norm > 0.0; j++) {
            v[j] /= sqrt(norm);
        }
    }
}

/* B := B (I − part·v vᵀ). */
static void reflect(const struct meed_adapter_module *module, double part, const double *v)
{
    for (int64_t row = 0; row < module->n; row++) {
        float *b = module->b + row * module->r;
        double dot = 0.0;
        for (int64_t j = 0; j < module->r; j++) {
            dot += (double)b[j] * v[j];
        }
        for (int64_t j = 0; j < module->r; j++) {
            b[j] = (float)((double)b[j] - part * dot * v[j]);
        }
    }
}

/* Directions are found in a copy of B from which those found before are taken away. */
static enum meed_status mirror_module(const struct meed_attack_member *member, int32_t m,
                                      const struct meed_adapter_module *module)
{
    int64_t r = module->r, count = (int64_t)(member->strength * (double)r);
    count = MEED_MAX(count, 1);
    struct meed_rng rng = meed_rng_stream(member->seed, "attack gap", (uint64_t)m);
    struct meed_adapter_module rest = *module;
    double *work = meed_heap_alloc((size_t)((count + 1) * r), sizeof *work);
    rest.b = meed_heap_alloc((size_t)(module->n * r), sizeof *rest.b);
    if (!work || !rest.b) {
        meed_heap_free(work);
        meed_heap_free(rest.b);
        return MEED_NOMEM;
    }
    memcpy(rest.b, module->b, (size_t)(module->n * r) * sizeof *rest.b);
    for (int64_t i = 0; i < count; i++) {
        double *v = work + i * r;
        top_direction(&rest, &rng, v, work + count * r);
        orthogonalise(work, i, r, v);
        reflect(&rest, 1.0, v);
        reflect(module, 2.0, v);
    }
    meed_heap_free(work);
    meed_heap_free(rest.b);
    return MEED_OK;
}

/* ---- adaptive -------------------------------------------------------------------------------- */

/* ⟨B_x A_x, B_y A_y⟩ with their scales. */
static double module_product(const struct meed_adapter_module *x,
                             const struct meed_adapter_module *y)
{
    double sum = 0.0;
    for (int64_t i = 0; i < x->r; i++) {
        for (int64_t j = 0; j < y->r; j++) {
            double bb = 0.0, aa = 0.0;
            for (int64_t row = 0; row < x->n; row++) {
                bb += (double)x->b[row * x->r + i] * (double)y->b[row * y->r + j];
            }
            for (int64_t c = 0; c < x->k; c++) {
                aa += (double)x->a[i * x->k + c] * (double)y->a[j * y->k + c];
            }
            sum += bb * aa;
        }
    }
    return sum * (double)x->scale * (double)y->scale;
}

/* ‖ΔW‖ over all modules. */
static double update_norm(const struct meed_adapter *global, const struct meed_adapter *client)
{
    double square = 0.0;
    for (int32_t m = 0; m < global->module_count; m++) {
        const struct meed_adapter_module *g = &global->modules[m], *c = &client->modules[m];
        square += module_product(c, c) - 2.0 * module_product(c, g) + module_product(g, g);
    }
    return sqrt(fmax(square, 0.0));
}

/* The multiple of what was learned at which ‖ΔW‖ is `target` times what it was, by bisection
 * (the norm grows with the multiple). Its own honest norm stands in for the cohort's median. */
static enum meed_status blow_up(const struct meed_attack_view *view, double target,
                                struct meed_adapter *trained)
{
    enum { HALVINGS = 12 };
    enum meed_status st = MEED_OK;
    struct meed_adapter *honest = NULL;
    MEED_TRY(meed_adapter_clone(trained, &honest));
    double wanted = target * update_norm(view->global, honest), low = 0.0, high = 2.0 * target;
    for (int i = 0; i < HALVINGS; i++) {
        double middle = 0.5 * (low + high);
        copy(honest, trained);
        MEED_TRY_OUT(rescale(view->global, middle, trained));
        *(update_norm(view->global, trained) < wanted ? &low : &high) = middle;
    }
    copy(honest, trained);
    MEED_TRY_OUT(rescale(view->global, low, trained));
out:
    meed_adapter_destroy(honest);
    return st;
}

/* ---- all ------------------------------------------------------------------------------------- */

static enum meed_status follow(const struct meed_attack_member *member,
                               const struct meed_attack_view *view, struct meed_adapter *trained)
{
    if (view->leader) {
        copy(view->leader, trained);
    }
    if (view->leader || member->attack == MEED_ATTACK_COLLUDE) {
        add_noise(member, view->round, view->global, member->strength, trained);
    }
    return MEED_OK;
}

enum meed_status meed_attack_update(const struct meed_attack_member *member,
                                    const struct meed_attack_view *view,
                                    struct meed_adapter *trained)
{
    const struct meed_adapter *global = view->global;
    switch (member->attack) {
    case MEED_ATTACK_FLIP:
        return rescale(global, -member->strength, trained);
    case MEED_ATTACK_SCALE:
        return rescale(global, member->strength, trained);
    case MEED_ATTACK_GAUSSIAN:
        add_noise(member, view->round, global, member->strength, trained);
        return MEED_OK;
    case MEED_ATTACK_GAP:
        for (int32_t m = 0; m < trained->module_count; m++) {
            MEED_TRY(mirror_module(member, m, &trained->modules[m]));
        }
        return MEED_OK;
    case MEED_ATTACK_ZERO:
        copy(global, trained);
        return MEED_OK;
    case MEED_ATTACK_RANDOM:
        random_update(member, view->round, trained);
        return MEED_OK;
    case MEED_ATTACK_REPLAY:
        if (view->previous) {
            MEED_TRY(combine(global, 2.0, view->previous, -1.0, trained));
            add_noise(member, view->round, global, member->strength, trained);
        }
        return MEED_OK;
    case MEED_ATTACK_DUPLICATE:
    case MEED_ATTACK_COLLUDE:
        return follow(member, view, trained);
    case MEED_ATTACK_ADAPTIVE:
        return view->clip_multiple > 0.0
                   ? blow_up(view, member->strength * view->clip_multiple, trained)
                   : MEED_OK;
    default:
        return MEED_OK;
    }
}
