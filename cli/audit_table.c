/* The table of an audit; see audit_result.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "cli/audit_result.h"
#include "cli/score_session.h"

static void right(const char *text, int columns)
{
    meed_score_session_cell(text, columns, true);
}

static int name_columns(const struct meed_audit_result *r)
{
    int columns = 10;
    for (int32_t m = 0; m < r->model_count; m++) {
        const int length = (int)strlen(r->models[m].name) + 2;
        columns = length > columns ? length : columns;
    }
    return columns < 46 ? columns : 46;
}

/* The end of a long name says which it is. */
static void name_print(const struct meed_audit_result *r, int32_t model)
{
    const int columns = name_columns(r);
    const char *name = r->models[model].name;
    const int over = (int)strlen(name) + 2 - columns;
    char text[300];
    name += over > 0 ? over + 1 : 0;
    while (((unsigned char)*name & 0xC0) == 0x80) { /* not inside a character */
        name++;
    }
    snprintf(text, sizeof text, "%s%s", over > 0 ? "…" : "", name);
    printf("  ");
    meed_score_session_cell(text, columns, false);
}

static void share_print(struct meed_extraction_mean mean, bool sign, int columns)
{
    char text[48];
    snprintf(text, sizeof text, "%s%.1f ± %.1f %%",
             mean.mean < 0 ? "−"
             : sign        ? "+"
                           : "",
             fabs(100 * mean.mean), 100 * mean.se);
    right(text, columns);
}

static void of_print(int32_t count, int32_t all, int columns)
{
    char text[48] = "–";
    if (all > 0) {
        snprintf(text, sizeof text, "%d of %d", (int)count, (int)all);
    }
    right(text, columns);
}

static void heads_print(const struct meed_audit_result *r, const char *const *heads,
                        const int *columns, size_t count)
{
    printf("  ");
    meed_score_session_cell("model", name_columns(r), false);
    for (size_t i = 0; i < count; i++) {
        right(heads[i], columns[i]);
    }
    printf("\n");
}

/* --- extraction ------------------------------------------------------------------------------- */
static void extraction_print(const struct meed_audit_result *r)
{
    static const char *const heads[] = {"given", "rouge-l", "gain",   "exact",
                                        "gain",  "whole",   "secrets"};
    static const int columns[] = {7, 15, 16, 15, 16, 13, 13};
    const int32_t prefixes = r->extraction_options.prefix_count;
    printf("extraction: asked for the replies of %s\n", r->data);
    heads_print(r, heads, columns, MEED_COUNT(heads));
    for (int32_t i = 0; i < r->model_count * prefixes; i++) {
        const struct meed_extraction_row *row = &r->extraction[i];
        const bool is_floor = i / prefixes == r->floor;
        char given[16];
        name_print(r, i / prefixes);
        snprintf(given, sizeof given, "%d", (int)r->extraction_options.prefixes[i % prefixes]);
        right(given, columns[0]);
        share_print(row->rouge, false, columns[1]);
        if (is_floor) {
            right("floor", columns[2]);
        } else {
            share_print(row->rouge_gain, true, columns[2]);
        }
        share_print(row->exact, false, columns[3]);
        if (is_floor) {
            right("floor", columns[4]);
        } else {
            share_print(row->exact_gain, true, columns[4]);
        }
        of_print(row->whole, row->examples, columns[5]);
        of_print(row->secrets_found, row->secrets, columns[6]);
        printf("\n");
    }
    printf("  given: tokens of the reply shown beside all that stands before it. rouge-l: words in "
           "common, in order. exact: tokens\n  right before the first wrong one. The gain over the "
           "floor, which never saw these replies, is the leakage.\n\n");
}

/* --- exposure --------------------------------------------------------------------------------- */
static void exposure_print(const struct meed_audit_result *r)
{
    static const char *const heads[] = {"bits", "named first"};
    static const int columns[] = {16, 14};
    const double space = log2((double)r->canaries->format.space);
    const bool all = r->canaries->format.space - 1 <= (uint64_t)r->candidates;
    printf("exposure: %d secrets, planted %d time%s each\n", (int)r->canaries->count,
           (int)r->canaries->repeat, r->canaries->repeat == 1 ? "" : "s");
    heads_print(r, heads, columns, MEED_COUNT(heads));
    for (int32_t m = 0; m < r->model_count; m++) {
        char text[48];
        name_print(r, m);
        snprintf(text, sizeof text, "%.2f ± %.2f", r->exposure[m].bits, r->exposure[m].se);
        right(text, columns[0]);
        of_print(r->exposure[m].capped, r->canaries->count, columns[1]);
        printf("\n");
    }
    if (all) {
        printf("  A secret is one of %.0f, %.1f bits: all of them were ranked. ",
               (double)r->canaries->format.space, space);
    } else {
        printf(
            "  A secret has %.1f bits; it was ranked among %d drawn at random, so %.1f bits mean "
            "\"at least\". ",
            space, (int)r->candidates, log2(r->candidates + 1.0));
    }
    printf("A model that knows\n  nothing has 1.4 on average.\n\n");
}

/* --- membership ------------------------------------------------------------------------------- */
static void membership_print(const struct meed_audit_result *r)
{
    static const char *const heads[] = {"score", "area under ROC", "at 1 %", "at 5 %"};
    static const int columns[] = {12, 24, 10, 10};
    printf("membership: %d dialogues of %s against %d of %s\n", (int)r->members, r->data,
           (int)r->others, r->non_members);
    heads_print(r, heads, columns, MEED_COUNT(heads));
    for (int32_t i = 0; i < r->model_count * MEED_MEMBERSHIP_COUNT; i++) {
        const struct meed_separation *s = &r->membership[i];
        const enum meed_membership_score score =
            (enum meed_membership_score)(i % MEED_MEMBERSHIP_COUNT);
        char text[64];
        if (score == MEED_MEMBERSHIP_REFERENCE && i / MEED_MEMBERSHIP_COUNT == r->floor) {
            continue; /* a model less itself */
        }
        name_print(r, i / MEED_MEMBERSHIP_COUNT);
        right(meed_membership_score_name(score), columns[0]);
        snprintf(text, sizeof text, "%.3f [%.3f, %.3f]", s->area, s->low, s->high);
        right(text, columns[1]);
        snprintf(text, sizeof text, "%.1f %%", 100 * s->found_1);
        right(text, columns[2]);
        snprintf(text, sizeof text, "%.1f %%", 100 * s->found_5);
        right(text, columns[3]);
        printf("\n");
    }
    printf(
        "  area: how often a dialogue that was trained on scores above one that was not; 0.5 is "
        "chance, and what the floor has\n  above it is a difference of the files. at 1 %%, 5 %%: "
        "members found when so many others are accused.\n\n");
}

/* --- frequency -------------------------------------------------------------------------------- */
static void frequency_print(const struct meed_audit_result *r)
{
    static const char *const heads[] = {"recovered", "share", "replies tried", "of them hits"};
    static const int columns[] = {14, 16, 16, 14};
    printf("frequency: a client with %s asks for secrets of %s\n", r->attacker, r->data);
    heads_print(r, heads, columns, MEED_COUNT(heads));
    for (int32_t m = 0; m < r->model_count; m++) {
        const struct meed_frequency_result *f = &r->frequency[m];
        const double share = (double)f->recovered / f->exclusive;
        const struct meed_extraction_mean mean = {share, sqrt(share * (1 - share) / f->exclusive)};
        char text[32];
        name_print(r, m);
        of_print(f->recovered, f->exclusive, columns[0]);
        share_print(mean, false, columns[1]);
        snprintf(text, sizeof text, "%d", (int)f->completions);
        right(text, columns[2]);
        snprintf(text, sizeof text, "%d", (int)f->hits);
        right(text, columns[3]);
        printf("\n");
    }
    printf("  recovered: secrets that the attacker does not have and that stood, letter by letter, "
           "in some reply to the %d most frequent\n  beginnings of its own. What the floor says by "
           "chance is no leak.\n\n",
           (int)r->frequency[0].prefixes);
}

static void quality_print(const struct meed_audit_result *r)
{
    if (isfinite(r->models[0].quality)) {
        printf("quality on %s\n", r->benchmark);
        for (int32_t m = 0; m < r->model_count; m++) {
            char text[64];
            name_print(r, m);
            meed_score_session_estimate(r->models[m].quality, r->models[m].quality_se, false, text);
            right(text, 22);
            printf("\n");
        }
        printf("\n");
    }
}

void meed_audit_result_print(const struct meed_audit_result *result)
{
    if (result->extraction) {
        extraction_print(result);
    }
    if (result->exposure) {
        exposure_print(result);
    }
    if (result->membership) {
        membership_print(result);
    }
    if (result->frequency) {
        frequency_print(result);
    }
    quality_print(result);
    printf("floor: %s. Low figures say that these attacks fail, not that no attack succeeds.\n",
           result->models[result->floor].name);
}
