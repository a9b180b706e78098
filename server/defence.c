/* See defence.h. */
#include "server/defence.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t arena_limit = (size_t)4 << 30;

static const enum meed_defence_action defaults[MEED_DETECTOR_COUNT] = {
    [MEED_DETECTOR_IDLE] = MEED_DEFENCE_OFF,
    [MEED_DETECTOR_NORM] = MEED_DEFENCE_REFUSE,
    [MEED_DETECTOR_REPLAY] = MEED_DEFENCE_REFUSE,
    [MEED_DETECTOR_DUPLICATE] = MEED_DEFENCE_REFUSE,
    [MEED_DETECTOR_SPAN] = MEED_DEFENCE_REMARK,
    [MEED_DETECTOR_DISPERSION] = MEED_DEFENCE_REMARK,
    [MEED_DETECTOR_DIRECTION] = MEED_DEFENCE_REMARK,
    [MEED_DETECTOR_GAP] = MEED_DEFENCE_REMARK,
    [MEED_DETECTOR_UNLIKE] = MEED_DEFENCE_REFUSE,
    [MEED_DETECTOR_CLIQUE] = MEED_DEFENCE_REFUSE};

const char *meed_defence_action_name(enum meed_defence_action action)
{
    static const char *const names[] = {"default", "off", "flag", "exclude"};
    return action >= 0 && action < MEED_DEFENCE_ACTION_COUNT ? names[action] : "?";
}

enum meed_status meed_defence_check(const struct meed_defence_options *options)
{
    if (!(options->clip_multiple >= 0.0)) {
        return MEED_FAIL(MEED_CONFIG, "clip multiple must be at least 0");
    }
    for (int d = 0; d < MEED_DETECTOR_COUNT; d++) {
        if (options->actions[d] < 0 || options->actions[d] >= MEED_DEFENCE_ACTION_COUNT) {
            return MEED_FAIL(MEED_CONFIG, "defence: %s is off, flag or exclude",
                             meed_detector_name((enum meed_detector)d));
        }
    }
    if (options->actions[MEED_DETECTOR_SPAN] == MEED_DEFENCE_REFUSE) {
        return MEED_FAIL(MEED_CONFIG, "defence: span cannot exclude, because a split's parts and "
                                      "its whole look alike in it; write off or flag");
    }
    return MEED_OK;
}

/* ---- verdicts -------------------------------------------------------------------------------- */

struct screen {
    const struct meed_adapter *const *clients;
    const char *const *names;
    int32_t count;
    const struct meed_defence_options *options;
    struct meed_defence_client *verdicts;
    struct meed_detector_report report;
};

/* Raises the verdict, never lowers it, and puts the reason behind those before it. */
__attribute__((format(printf, 3, 4))) static void judge(struct meed_defence_client *client,
                                                        enum meed_defence_verdict verdict,
                                                        const char *format, ...)
{
    size_t used = strlen(client->reason);
    client->verdict = MEED_MAX(client->verdict, verdict);
    client->factor = client->verdict == MEED_DEFENCE_EXCLUDE ? 0.0 : client->factor;
    if (used > 0 && used + 2 < sizeof client->reason) {
        memcpy(client->reason + used, "; ", 3);
        used += 2;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(client->reason + used, sizeof client->reason - used, format, arguments);
    va_end(arguments);
}

static bool all_finite(const struct meed_adapter *adapter)
{
    for (int32_t m = 0; m < adapter->module_count; m++) {
        const struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t i = 0; i < module->r * module->k; i++) {
            if (!isfinite(module->a[i])) {
                return false;
            }
        }
        for (int64_t i = 0; i < module->n * module->r; i++) {
            if (!isfinite(module->b[i])) {
                return false;
            }
        }
    }
    return true;
}

static bool stands(const struct screen *screen, int32_t i)
{
    return screen->verdicts[i].verdict != MEED_DEFENCE_EXCLUDE && screen->report.clients[i].moves;
}

static enum meed_defence_action action_of(const struct screen *screen, enum meed_detector detector)
{
    enum meed_defence_action action = screen->options->actions[detector];
    return action == MEED_DEFENCE_DEFAULT ? defaults[detector] : action;
}

/* False: the detector is off, or sees nothing in this client. */
static bool finds(const struct screen *screen, int32_t i, enum meed_detector detector,
                  enum meed_defence_verdict *verdict)
{
    enum meed_defence_action action = action_of(screen, detector);
    *verdict = action == MEED_DEFENCE_REFUSE ? MEED_DEFENCE_EXCLUDE : MEED_DEFENCE_FLAG;
    return action != MEED_DEFENCE_OFF && screen->report.clients[i].ratio[detector] >= 1.0;
}

static void judge_replay(struct screen *screen, int32_t i)
{
    enum meed_defence_verdict verdict;
    const struct meed_detector_client *found = &screen->report.clients[i];
    double cosine = found->value[MEED_DETECTOR_REPLAY];
    const char *of = found->past_idx == 0 ? "the last global step"
                                          : "an update of the round "
                                            "before";
    if (!stands(screen, i) || !finds(screen, i, MEED_DETECTOR_REPLAY, &verdict)) {
        return;
    }
    if (cosine < MEED_DETECTOR_SAME) {
        judge(&screen->verdicts[i], verdict, "a replay with changes: cosine %.3f with %s", cosine,
              of);
    } else {
        judge(&screen->verdicts[i], verdict,
              found->past_idx == 0 ? "a replay: it points exactly along %s"
                                   : "a replay: it equals %s",
              of);
    }
}

/* Both stand out by their likeness and they are alike. */
static bool twins(const struct screen *screen, int32_t i, int32_t j)
{
    const struct meed_detector_client *x = &screen->report.clients[i];
    const struct meed_detector_client *y = &screen->report.clients[j];
    double cosine = screen->report.cosines[(int64_t)i * screen->count + j];
    return cosine >= MEED_DETECTOR_SAME ||
           (cosine > MEED_DETECTOR_NEAR && x->ratio[MEED_DETECTOR_DUPLICATE] >= 1.0 &&
            y->ratio[MEED_DETECTOR_DUPLICATE] >= 1.0);
}

static void judge_duplicates(struct screen *screen)
{
    enum meed_defence_verdict verdict;
    for (int32_t i = 0; i < screen->count; i++) {
        for (int32_t j = i + 1; j < screen->count && stands(screen, i); j++) {
            if (!stands(screen, j) || !twins(screen, i, j) ||
                !finds(screen, j, MEED_DETECTOR_DUPLICATE, &verdict)) {
                continue;
            }
            double cosine = screen->report.cosines[(int64_t)i * screen->count + j];
            if (cosine >= MEED_DETECTOR_SAME) {
                judge(&screen->verdicts[j], verdict, "the same update as %s's: counted once",
                      screen->names[i]);
            } else {
                judge(&screen->verdicts[j], verdict,
                      "nearly the same update as %s's (cosine %.3f): counted once",
                      screen->names[i], cosine);
            }
        }
    }
}

/* What a client looks like beside its cohort. */
static void judge_cohort(struct screen *screen, int32_t i)
{
    enum meed_defence_verdict verdict;
    struct meed_defence_client *client = &screen->verdicts[i];
    const struct meed_detector_client *found = &screen->report.clients[i];
    if (!stands(screen, i)) {
        return;
    }
    if (finds(screen, i, MEED_DETECTOR_NORM, &verdict)) {
        double most = fmax(1.0, screen->options->clip_multiple);
        bool beyond = found->value[MEED_DETECTOR_NORM] > most;
        judge(client, beyond ? verdict : MEED_DEFENCE_FLAG, "its norm is %.3g times the median",
              found->value[MEED_DETECTOR_NORM]);
    }
    if (finds(screen, i, MEED_DETECTOR_SPAN, &verdict) &&
        found->ratio[MEED_DETECTOR_DUPLICATE] < 1.0) {
        judge(client, verdict, "it is a sum of parts of others' updates, or they of it");
    }
    if (finds(screen, i, MEED_DETECTOR_DISPERSION, &verdict)) {
        judge(client, verdict, "its weight lies in other modules than the cohort's (off by %.2f)",
              found->value[MEED_DETECTOR_DISPERSION]);
    }
    if (finds(screen, i, MEED_DETECTOR_DIRECTION, &verdict)) {
        judge(client, verdict, "it points away from the cohort (cosine %.2f with its centre)",
              found->value[MEED_DETECTOR_DIRECTION]);
    }
    if (finds(screen, i, MEED_DETECTOR_GAP, &verdict)) {
        judge(client, verdict, "its factors look like the cohort's, their product does not");
    }
    if (finds(screen, i, MEED_DETECTOR_UNLIKE, &verdict) && verdict == MEED_DEFENCE_FLAG) {
        judge(client, verdict, "unlike the others (%.1f deviations)",
              found->value[MEED_DETECTOR_UNLIKE]);
    }
    if (finds(screen, i, MEED_DETECTOR_CLIQUE, &verdict) && verdict == MEED_DEFENCE_FLAG) {
        judge(client, verdict, "it shares a direction with a group (%.1f deviations)",
              found->value[MEED_DETECTOR_CLIQUE]);
    }
}

static int by_value(const void *x, const void *y)
{
    double left = *(const double *)x, right = *(const double *)y;
    return (left > right) - (left < right);
}

/* norms [count]: scratch. */
static void clip(struct screen *screen, double *norms)
{
    int32_t moving = 0;
    for (int32_t i = 0; i < screen->count; i++) {
        if (stands(screen, i)) {
            norms[moving++] = screen->verdicts[i].norm;
        }
    }
    qsort(norms, (size_t)moving, sizeof *norms, by_value);
    double median = moving > 0 ? 0.5 * (norms[(moving - 1) / 2] + norms[moving / 2]) : 0.0;
    double most = screen->options->clip_multiple * median;
    for (int32_t i = 0; i < screen->count && moving >= 3 && most > 0.0; i++) {
        struct meed_defence_client *client = &screen->verdicts[i];
        if (!stands(screen, i) || client->norm <= most) {
            continue;
        }
        client->factor = most / client->norm;
        judge(client, MEED_DEFENCE_CLIP, "clipped: %.3g times the median norm, cut to %.3g",
              client->norm / median, screen->options->clip_multiple);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Those of a shape and of values that can be compared at all. */
static void admit(struct screen *screen, const struct meed_adapter *global,
                  const struct meed_adapter **admitted)
{
    for (int32_t i = 0; i < screen->count; i++) {
        struct meed_defence_client *client = &screen->verdicts[i];
        *client = (struct meed_defence_client){.verdict = MEED_DEFENCE_ACCEPT, .factor = 1.0};
        if (!meed_adapter_same_shape(global, screen->clients[i])) {
            judge(client, MEED_DEFENCE_EXCLUDE, "its shapes are not those of the plan");
        } else if (!all_finite(screen->clients[i])) {
            judge(client, MEED_DEFENCE_EXCLUDE, "it holds a value that is not finite");
        } else {
            admitted[i] = screen->clients[i];
        }
    }
}

enum meed_status meed_defence_screen(const struct meed_adapter *global,
                                     const struct meed_adapter *const *clients,
                                     const char *const *names, int32_t count,
                                     const struct meed_step_past *past,
                                     const struct meed_defence_options *options,
                                     struct meed_pool *pool, struct meed_defence_client *verdicts)
{
    enum meed_status st = MEED_OK;
    struct screen screen = {clients, names, count, options, verdicts, {0}};
    struct meed_arena arena;
    void *admitted = NULL, *norms = NULL;
    meed_arena_init_growing(&arena, "round", arena_limit);
    MEED_TRY_OUT(meed_arena_alloc_array(&arena, (size_t)count + 1, sizeof *clients, &admitted));
    MEED_TRY_OUT(meed_arena_alloc_array(&arena, (size_t)count + 1, sizeof(double), &norms));
    admit(&screen, global, admitted);
    MEED_TRY_OUT(meed_detector_run(global, admitted, count, past, pool, &arena, &screen.report));
    for (int32_t i = 0; i < count; i++) {
        verdicts[i].norm = screen.report.clients[i].norm;
        verdicts[i].score = screen.report.clients[i].score;
        if (action_of(&screen, MEED_DETECTOR_UNLIKE) == MEED_DEFENCE_REFUSE) {
            verdicts[i].unlike = screen.report.clients[i].value[MEED_DETECTOR_UNLIKE];
        }
        if (action_of(&screen, MEED_DETECTOR_CLIQUE) == MEED_DEFENCE_REFUSE) {
            memcpy(verdicts[i].loadings,
                   screen.report.loadings + (int64_t)i * MEED_CLIQUE_DIRECTIONS,
                   sizeof verdicts[i].loadings);
        }
        if (screen.report.clients[i].overflows) {
            judge(&verdicts[i], MEED_DEFENCE_EXCLUDE,
                  "its numbers are too large to be a trained update");
        }
        judge_replay(&screen, i);
    }
    judge_duplicates(&screen);
    for (int32_t i = 0; i < count; i++) {
        judge_cohort(&screen, i);
    }
    clip(&screen, norms);
out:
    meed_arena_clear(&arena);
    return st;
}
