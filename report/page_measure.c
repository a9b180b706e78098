/* The measures of an experiment as a reader calls them; see page.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "report/page.h"

static const struct {
    const char *name;
    struct meed_page_measure measure;
} measures[] = {
    {"utility_before", {"utility before", MEED_PAGE_ESTIMATE, false, false, -INFINITY, INFINITY}},
    {"utility_after", {"utility after", MEED_PAGE_ESTIMATE, true, false, -INFINITY, INFINITY}},
    {"gain", {"gain", MEED_PAGE_ESTIMATE, false, false, -INFINITY, INFINITY}},
    {"gain_kept", {"gain kept", MEED_PAGE_SHARE, true, false, -INFINITY, INFINITY}},
    {"budget", {"budget", MEED_PAGE_ESTIMATE, false, false, 0, INFINITY}},
    {"paid", {"paid", MEED_PAGE_ESTIMATE, false, false, 0, INFINITY}},
    {"honest_share", {"honest clients' pay", MEED_PAGE_SHARE, false, false, 0, 1}},
    {"attacker_share", {"attackers' pay", MEED_PAGE_SHARE, true, false, 0, 1}},
    {"auroc_score", {"AUROC, screening", MEED_PAGE_AREA, true, false, 0, 1}},
    {"auroc_combined", {"AUROC, screening, value and guards", MEED_PAGE_AREA, true, false, 0, 1}},
    {"caught", {"attackers' updates excluded", MEED_PAGE_SHARE, true, false, 0, 1}},
    {"false_exclusion", {"honest updates excluded", MEED_PAGE_SHARE, true, false, 0, 1}},
    {"spread", {"largest |pay / mean − 1|, honest", MEED_PAGE_SHARE, true, false, 0, INFINITY}},
    {"spearman_quality", {"Spearman, pay with quality", MEED_PAGE_ESTIMATE, true, false, -1, 1}},
    {"spearman_amount", {"Spearman, pay with amount", MEED_PAGE_ESTIMATE, true, false, -1, 1}},
    {"utility_own", {"utility at home", MEED_PAGE_ESTIMATE, true, false, -INFINITY, INFINITY}},
    {"leak_global", {"leak of the global model", MEED_PAGE_SHARE, false, true, -1, 1}},
    {"leak_update", {"leak of a client's update", MEED_PAGE_SHARE, false, true, -1, 1}},
    {"leak_own", {"leak of a model at home", MEED_PAGE_SHARE, false, true, -1, 1}},
    {"memory_global", {"memory of the global model", MEED_PAGE_SHARE, false, true, -1, 1}},
    {"memory_update", {"memory of a client's update", MEED_PAGE_SHARE, false, true, -1, 1}},
    {"memory_own", {"memory of a model at home", MEED_PAGE_SHARE, false, true, -1, 1}},
    {"secrets_global", {"secrets out of the global model", MEED_PAGE_SHARE, false, true, 0, 1}},
    {"secrets_update", {"secrets out of a client's update", MEED_PAGE_SHARE, true, true, 0, 1}},
};

struct meed_page_measure meed_page_measure_of(const char *name)
{
    static const char axis[] = "axis_", change[] = "_change";
    struct meed_page_measure found = {.charted = true, .low = -INFINITY, .high = INFINITY};
    size_t length = strlen(name), end = strlen(change);
    for (size_t i = 0; i < MEED_COUNT(measures); i++) {
        if (strcmp(name, measures[i].name) == 0) {
            return measures[i].measure;
        }
    }
    if (strncmp(name, axis, strlen(axis)) != 0) {
        snprintf(found.title, sizeof found.title, "%.90s", name);
    } else if (length > end && strcmp(name + length - end, change) == 0) {
        snprintf(found.title, sizeof found.title, "%.*s against clean",
                 (int)MEED_MIN(length - end - strlen(axis), 64), name + strlen(axis));
    } else {
        snprintf(found.title, sizeof found.title, "%.80s", name + strlen(axis));
        found.charted = false;
    }
    return found;
}

struct meed_numeral meed_page_measure_text(const struct meed_page_measure *measure, double mean,
                                           double half)
{
    /* Seeds that all agree leave no interval to show. */
    double error = half > 0 ? half : NAN;
    struct meed_numeral n = meed_numeral_fixed(mean, 3, false);
    if (measure->form == MEED_PAGE_SHARE) {
        return meed_numeral_share(mean, error);
    }
    if (measure->form == MEED_PAGE_ESTIMATE || isnan(mean)) {
        return meed_numeral_estimate(mean, error);
    }
    size_t used = strlen(n.text);
    if (!isnan(error)) {
        snprintf(n.text + used, sizeof n.text - used, " ± %.24s",
                 meed_numeral_fixed(error, 3, false).text);
    }
    return n;
}

int32_t meed_page_measure_find(const struct meed_run_grid *grid, const char *name)
{
    for (int32_t i = 0; i < grid->measure_count; i++) {
        if (strcmp(grid->measures[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

bool meed_page_measure_known(const struct meed_run_grid *grid, const char *name)
{
    int32_t measure = meed_page_measure_find(grid, name);
    bool found = false;
    for (int32_t r = 0; measure >= 0 && r < grid->row_count; r++) {
        found = found || isfinite(grid->rows[r].mean[measure]);
    }
    return found;
}
