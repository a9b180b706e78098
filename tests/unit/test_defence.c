/* The first screens, each on a cohort made for it.
 *
 * Goal: replayed, copied, oversized and diverged updates get their verdict with a reason, honest
 * and unchanged ones get none, in any gauge of the factors. Method: small adapters; a copy is
 * disguised by B → BQ, A → Q⁻¹A, which changes every factor and nothing of ΔW.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "base/rng.h"
#include "server/defence.h"

static const struct meed_model_config model = {.hidden = 12,
                                               .ffn = 20,
                                               .layers = 2,
                                               .heads = 2,
                                               .kv_heads = 1,
                                               .head_dim = 8,
                                               .vocab = 32,
                                               .max_positions = 64};
static const struct meed_defence_options options = {.clip_multiple = 3.0};
static const char *const names[] = {"anna", "ben", "cleo", "dan", "eve"};

static struct meed_adapter *global;

static struct meed_adapter *moved(uint64_t seed, double size)
{
    struct meed_adapter *adapter = NULL;
    assert_int_equal(meed_adapter_clone(global, &adapter), MEED_OK);
    struct meed_rng rng = meed_rng_stream(seed, "moved", 0);
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t i = 0; i < module->r * module->k; i++) {
            module->a[i] += (float)(0.1 * size * meed_rng_normal(&rng));
        }
        for (int64_t i = 0; i < module->n * module->r; i++) {
            module->b[i] += (float)(size * meed_rng_normal(&rng));
        }
    }
    return adapter;
}

static int setup(void **state)
{
    (void)state;
    struct meed_lora_config lora = {.rank = 3, .alpha = 6, .targets = 1u << MEED_PROJ_Q};
    assert_int_equal(meed_adapter_create(&model, &lora, &global), MEED_OK);
    meed_adapter_init(global, 3);
    struct meed_adapter *other = moved(99, 0.3);
    meed_adapter_destroy(global);
    global = other;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    meed_adapter_destroy(global);
    return 0;
}

/* Another pair of factors for the same product: row i of A doubled, column i of B halved, and rows
 * swapped. */
static void disguise(struct meed_adapter *adapter)
{
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t k = 0; k < module->k; k++) {
            float first = module->a[k];
            module->a[k] = 2.0f * module->a[module->k + k];
            module->a[module->k + k] = 0.25f * first;
        }
        for (int64_t n = 0; n < module->n; n++) {
            float first = module->b[n * module->r];
            module->b[n * module->r] = 0.5f * module->b[n * module->r + 1];
            module->b[n * module->r + 1] = 4.0f * first;
        }
    }
}

static void screen(struct meed_adapter **clients, int32_t count, const struct meed_step_past *past,
                   struct meed_defence_client *verdicts)
{
    assert_int_equal(meed_defence_screen(global, (const struct meed_adapter *const *)clients, names,
                                         count, past, &options, NULL, verdicts),
                     MEED_OK);
}

static void defence_leaves_honest_and_idle_clients_alone(void **state)
{
    (void)state;
    struct meed_adapter *clients[5] = {moved(1, 0.1), moved(2, 0.1), NULL, moved(3, 0.2), NULL};
    assert_int_equal(meed_adapter_clone(global, &clients[2]), MEED_OK);
    assert_int_equal(meed_adapter_clone(global, &clients[4]), MEED_OK);
    struct meed_defence_client verdicts[5];
    screen(clients, 5, NULL, verdicts);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(verdicts[i].verdict, MEED_DEFENCE_ACCEPT);
        assert_true(verdicts[i].factor == 1.0);
        assert_true((verdicts[i].norm == 0.0) == (i == 2 || i == 4));
        meed_adapter_destroy(clients[i]);
    }
}

/* The norm against the naive one on the whole matrix. */
static void defence_measures_the_product(void **state)
{
    (void)state;
    struct meed_adapter *client = moved(1, 0.1);
    struct meed_defence_client verdict;
    screen(&client, 1, NULL, &verdict);
    double want = 0.0;
    for (int32_t m = 0; m < global->module_count; m++) {
        const struct meed_adapter_module *g = &global->modules[m], *c = &client->modules[m];
        for (int64_t n = 0; n < g->n; n++) {
            for (int64_t k = 0; k < g->k; k++) {
                double sum = 0.0;
                for (int64_t i = 0; i < g->r; i++) {
                    sum += (double)c->b[n * c->r + i] * (double)c->a[i * c->k + k] -
                           (double)g->b[n * g->r + i] * (double)g->a[i * g->k + k];
                }
                want += sum * sum * (double)g->scale * (double)g->scale;
            }
        }
    }
    assert_true(fabs(verdict.norm - sqrt(want)) < 1e-10 * sqrt(want));
    meed_adapter_destroy(client);
}

static void defence_counts_copies_once(void **state)
{
    (void)state;
    struct meed_adapter *clients[4] = {moved(1, 0.1), moved(2, 0.1), NULL, moved(3, 0.1)};
    assert_int_equal(meed_adapter_clone(clients[1], &clients[2]), MEED_OK);
    disguise(clients[2]);
    struct meed_defence_client verdicts[4];
    screen(clients, 4, NULL, verdicts);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(verdicts[i].verdict, i == 2 ? MEED_DEFENCE_EXCLUDE : MEED_DEFENCE_ACCEPT);
        meed_adapter_destroy(clients[i]);
    }
    assert_non_null(strstr(verdicts[2].reason, "ben"));
}

static void defence_sees_replays(void **state)
{
    (void)state;
    struct meed_adapter *base = moved(50, 0.2), *old = NULL;
    struct meed_adapter *clients[3] = {moved(1, 0.1), NULL, NULL};
    /* Client 1 adds the last global step once more; client 2 repeats what `old` did to base. */
    assert_int_equal(meed_adapter_clone(base, &old), MEED_OK);
    assert_int_equal(meed_adapter_clone(global, &clients[1]), MEED_OK);
    assert_int_equal(meed_adapter_clone(global, &clients[2]), MEED_OK);
    for (int32_t m = 0; m < global->module_count; m++) {
        struct meed_adapter_module *b = &base->modules[m], *o = &old->modules[m];
        struct meed_adapter_module *one = &clients[1]->modules[m], *two = &clients[2]->modules[m];
        struct meed_rng rng = meed_rng_stream(5, "old", (uint64_t)m);
        int64_t width_a = one->r * one->k, width_b = one->n * one->r;
        for (int64_t i = 0; i < width_a; i++) {
            b->a[i] = global->modules[m].a[i]; /* A fixed: ΔW is linear in B */
            o->a[i] = b->a[i];
        }
        for (int64_t i = 0; i < width_b; i++) {
            float step = (float)(0.1 * meed_rng_normal(&rng));
            o->b[i] = b->b[i] + step;
            two->b[i] += 0.7f * step;
            one->b[i] += 1.5f * (global->modules[m].b[i] - b->b[i]);
        }
    }
    const struct meed_adapter *past_clients[] = {old};
    struct meed_step_past past = {base, past_clients, 1};
    struct meed_defence_client verdicts[3];
    screen(clients, 3, &past, verdicts);
    assert_int_equal(verdicts[0].verdict, MEED_DEFENCE_ACCEPT);
    assert_int_equal(verdicts[1].verdict, MEED_DEFENCE_EXCLUDE);
    assert_non_null(strstr(verdicts[1].reason, "global step"));
    assert_int_equal(verdicts[2].verdict, MEED_DEFENCE_EXCLUDE);
    assert_non_null(strstr(verdicts[2].reason, "round before"));
    for (int i = 0; i < 3; i++) {
        meed_adapter_destroy(clients[i]);
    }
    meed_adapter_destroy(base);
    meed_adapter_destroy(old);
}

static void defence_clips_and_excludes_by_size(void **state)
{
    (void)state;
    struct meed_adapter *clients[5] = {moved(1, 0.1), moved(2, 0.1), moved(3, 5.0), moved(4, 0.1),
                                       moved(5, 0.1)};
    clients[4]->modules[1].b[2] = NAN;
    struct meed_defence_client verdicts[5];
    screen(clients, 5, NULL, verdicts);
    assert_int_equal(verdicts[2].verdict, MEED_DEFENCE_CLIP);
    double norms[4] = {verdicts[0].norm, verdicts[1].norm, verdicts[3].norm, 0};
    double low = fmin(norms[0], fmin(norms[1], norms[2]));
    double high = fmax(norms[0], fmax(norms[1], norms[2]));
    double middle = norms[0] + norms[1] + norms[2] - low - high;
    double clipped = verdicts[2].factor * verdicts[2].norm;
    assert_true(fabs(clipped - 3.0 * 0.5 * (middle + high)) < 1e-9);
    assert_int_equal(verdicts[4].verdict, MEED_DEFENCE_EXCLUDE);
    assert_true(verdicts[4].factor == 0.0);
    for (int i = 0; i < 5; i++) {
        assert_true(isfinite(verdicts[i].norm));
        meed_adapter_destroy(clients[i]);
    }
}

/* Of two, nobody can say which is too large. */
static void defence_clips_nobody_of_two(void **state)
{
    (void)state;
    struct meed_adapter *clients[2] = {moved(1, 0.1), moved(3, 20.0)};
    struct meed_defence_client verdicts[2];
    struct meed_defence_options tight = {.clip_multiple = 1.0};
    assert_int_equal(meed_defence_screen(global, (const struct meed_adapter *const *)clients, names,
                                         2, NULL, &tight, NULL, verdicts),
                     MEED_OK);
    assert_true(verdicts[0].factor == 1.0 && verdicts[1].factor == 1.0);
    meed_adapter_destroy(clients[0]);
    meed_adapter_destroy(clients[1]);
}

static void defence_hands_on_what_a_group_shares(void **state)
{
    /* Goal: of forty steps eight with a part in common have loadings for the verdict by default,
     * apart from all others'; none where the detector is off, and a remark where it only flags. */
    (void)state;
    enum { COHORT = 40, GROUP = 8 };
    struct meed_adapter *clients[COHORT], *part = moved(500, 0.3);
    const char *cohort_names[COHORT];
    struct meed_defence_client verdicts[COHORT];
    for (int i = 0; i < COHORT; i++) {
        clients[i] = moved(600 + (uint64_t)i, 0.1);
        cohort_names[i] = "someone";
        for (int32_t m = 0; i < GROUP && m < global->module_count; m++) {
            const struct meed_adapter_module *from = &part->modules[m], *was = &global->modules[m];
            struct meed_adapter_module *to = &clients[i]->modules[m];
            for (int64_t at = 0; at < to->n * to->r; at++) {
                to->b[at] += from->b[at] - was->b[at];
            }
        }
    }
    for (int action = MEED_DEFENCE_DEFAULT; action <= MEED_DEFENCE_REFUSE; action++) {
        struct meed_defence_options how = options;
        how.actions[MEED_DETECTOR_UNLIKE] = how.actions[MEED_DETECTOR_NORM] = MEED_DEFENCE_OFF;
        how.actions[MEED_DETECTOR_SPAN] = how.actions[MEED_DETECTOR_DUPLICATE] = MEED_DEFENCE_OFF;
        how.actions[MEED_DETECTOR_CLIQUE] = (enum meed_defence_action)action;
        assert_int_equal(meed_defence_screen(global, (const struct meed_adapter *const *)clients,
                                             cohort_names, COHORT, NULL, &how, NULL, verdicts),
                         MEED_OK);
        bool given = action == MEED_DEFENCE_DEFAULT || action == MEED_DEFENCE_REFUSE;
        double least = INFINITY, most = 0.0;
        for (int i = 0; i < COHORT; i++) {
            double loading = fabs(verdicts[i].loadings[0]);
            bool said = strstr(verdicts[i].reason, "shares a direction with a group") != NULL;
            assert_int_equal(said, action == MEED_DEFENCE_REMARK && i < GROUP);
            assert_true(given || loading == 0.0);
            assert_int_not_equal(verdicts[i].verdict, MEED_DEFENCE_EXCLUDE);
            least = i < GROUP ? fmin(least, loading) : least;
            most = i < GROUP ? most : fmax(most, loading);
        }
        assert_true(!given || least > most);
    }
    for (int i = 0; i < COHORT; i++) {
        meed_adapter_destroy(clients[i]);
    }
    meed_adapter_destroy(part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defence_leaves_honest_and_idle_clients_alone),
        cmocka_unit_test(defence_measures_the_product),
        cmocka_unit_test(defence_counts_copies_once),
        cmocka_unit_test(defence_sees_replays),
        cmocka_unit_test(defence_clips_and_excludes_by_size),
        cmocka_unit_test(defence_clips_nobody_of_two),
        cmocka_unit_test(defence_hands_on_what_a_group_shares),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
