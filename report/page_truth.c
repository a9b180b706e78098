/* What a simulation can show and a real federation cannot: pay against the truth, and how well each
 * sign of an attack tells attackers from honest clients; see page.h. */
#include <math.h>
#include <stdio.h>
#include "report/chart.h"
#include "report/page.h"

enum { HONEST_TINT = 0, ATTACKER_TINT = 1 };

/* ---- pay against truth -------------------------------------------------------------------------
 */
enum truth_field { QUALITY, DIALOGUES };

static double truth_of(const struct meed_run_truth *truth, enum truth_field field)
{
    return field == QUALITY ? truth->quality : (double)truth->dialogues;
}

static bool varies(const struct meed_run_record *record, enum truth_field field)
{
    bool found = false;
    for (int32_t k = 1; k < record->client_count; k++) {
        found = found || truth_of(&record->truth[k], field) != truth_of(record->truth, field);
    }
    return found;
}

static enum meed_status pay_scatter(struct meed_markup *m, const struct meed_run_record *record,
                                    enum truth_field field)
{
    struct meed_chart_words words = {field == QUALITY ? "Pay against the quality of the data"
                                                      : "Pay against the amount of data",
                                     "blue: honest; orange: attackers, who should stand at zero.",
                                     field == QUALITY ? "quality, 0 … 1" : "dialogues", "credits"};
    struct meed_chart_point *points = meed_heap_alloc((size_t)record->client_count, sizeof *points);
    if (!points) {
        return MEED_NOMEM;
    }
    for (int32_t k = 0; k < record->client_count; k++) {
        points[k] = (struct meed_chart_point){.label = record->clients[k],
                                              .x = truth_of(&record->truth[k], field),
                                              .y = (double)record->totals[k],
                                              .tint = record->truth[k].attacks ? ATTACKER_TINT
                                                                               : HONEST_TINT};
    }
    meed_chart_scatter(m, &words, points, record->client_count, NULL);
    meed_heap_free(points);
    return MEED_OK;
}

/* ---- detectors --------------------------------------------------------------------------------
 */

/* Larger is more suspicious; every score is made of what the aggregator saw. The first two are of
 * single updates, the others of clients over the whole run. */
enum detector { SCREENING, COMBINED, OUT, PAY, VALUE, LOSS, DETECTOR_COUNT };
static const char *const detector_names[DETECTOR_COUNT] = {
    "screening's score of each update",
    "screening, value and guards of each update",
    "most rounds excluded, then least pay",
    "least pay",
    "least value",
    "largest reported loss"};

static double score_of(const struct meed_run_record *record, int32_t k, enum detector detector)
{
    double excluded = 0, phi = 0, loss = 0;
    for (int32_t r = 0; r < record->round_count; r++) {
        const struct meed_run_cell *cell = &record->rounds[r].cells[k];
        excluded += cell->state == MEED_RUN_EXCLUDED;
        phi += isfinite(cell->phi) ? cell->phi : 0;
        loss = isfinite(cell->loss) ? cell->loss : loss;
    }
    double pay = (double)record->totals[k] / fmax((double)record->budget, 1);
    switch (detector) {
    case OUT:
        return excluded - 1e-3 * pay; /* pay only decides among equals */
    case PAY:
        return -pay;
    case VALUE:
        return -phi;
    default:
        return loss;
    }
}

/* What is ranked: pairs of a score and the truth. */
struct ranked {
    double *scores; /* [rounds · clients] */
    bool *bad;
    int32_t count;
};

static void rank_updates(const struct meed_run_record *record, enum detector detector,
                         struct ranked *ranked)
{
    ranked->count = 0;
    for (int32_t r = 0; r < record->round_count; r++) {
        for (int32_t k = 0; k < record->client_count; k++) {
            const struct meed_run_cell *cell = &record->rounds[r].cells[k];
            double score = detector == SCREENING ? cell->score : cell->combined;
            if (isfinite(score)) {
                ranked->scores[ranked->count] = score;
                ranked->bad[ranked->count++] = record->truth[k].attacks;
            }
        }
    }
}

static void rank_clients(const struct meed_run_record *record, enum detector detector,
                         struct ranked *ranked)
{
    ranked->count = record->client_count;
    for (int32_t k = 0; k < record->client_count; k++) {
        ranked->scores[k] = score_of(record, k, detector);
        ranked->bad[k] = record->truth[k].attacks;
    }
}

static enum meed_status detectors_chart(struct meed_markup *m, const struct meed_run_record *record)
{
    static const struct meed_chart_words words = {
        "Detector ROC", "attackers against honest clients; the key gives the area, 0.5 is chance.",
        "honest flagged", "attackers flagged"};
    struct meed_chart_detector detectors[DETECTOR_COUNT];
    enum meed_status st = MEED_OK;
    size_t most = (size_t)record->client_count * (size_t)MEED_MAX(record->round_count, 1);
    int32_t drawn = 0;
    struct ranked ranked;
    struct meed_arena arena;
    void *scores = NULL, *bad = NULL;
    meed_arena_init_growing(&arena, "detectors", (size_t)1 << 30);
    MEED_TRY_OUT(meed_arena_alloc_array(&arena, most, sizeof(double), &scores));
    MEED_TRY_OUT(meed_arena_alloc_array(&arena, most, sizeof(bool), &bad));
    ranked = (struct ranked){scores, bad, 0};
    for (int d = 0; d < DETECTOR_COUNT; d++) {
        struct meed_chart_detector *detector = &detectors[drawn];
        (d <= COMBINED ? rank_updates : rank_clients)(record, (enum detector)d, &ranked);
        detector->name = detector_names[d];
        MEED_TRY_OUT(
            meed_roc_trace(ranked.scores, ranked.bad, ranked.count, &arena, &detector->roc));
        drawn += detector->roc.count > 0;
    }
    if (drawn > 0) {
        meed_chart_roc(m, &words, detectors, drawn);
    }
out:
    meed_arena_clear(&arena);
    return st;
}

/* ---- axes over rounds ---------------------------------------------------------------------------
 */
static enum meed_status axes_lines(struct meed_markup *m, const struct meed_run_record *record)
{
    size_t rounds = (size_t)record->round_count;
    double *x = meed_heap_alloc(rounds, sizeof *x);
    enum meed_status st = x ? MEED_OK : MEED_NOMEM;
    for (size_t r = 0; x && r < rounds; r++) {
        x[r] = record->rounds[r].number;
    }
    for (int32_t a = 0; x && a < record->track_count; a++) {
        const struct meed_run_track *track = &record->tracks[a];
        char title[128];
        snprintf(title, sizeof title, "Axis %.80s%s", track->name, track->guard ? ", a guard" : "");
        struct meed_chart_words words = {title, "of the published adapter, ± one standard error.",
                                         "round", record->unit};
        struct meed_chart_series series = {track->name, record->round_count, x, track->value,
                                           track->se};
        meed_chart_lines(m, &words, &series, 1, MEED_CHART_BAND);
    }
    meed_heap_free(x);
    return st;
}

void meed_page_truth(struct meed_markup *markup, const struct meed_run_record *record)
{
    if (record->track_count > 0 && markup->status == MEED_OK) {
        meed_page_heading(markup, "Utility by axis");
        meed_markup_raw(markup, "<div class=\"pair\">\n");
        markup->status = axes_lines(markup, record);
        meed_markup_raw(markup, "</div>\n");
    }
    if (!record->truth || record->client_count == 0 || markup->status != MEED_OK) {
        return;
    }
    meed_page_heading(markup, "Against the truth");
    meed_markup_raw(markup, "<div class=\"pair\">\n");
    enum meed_status st = detectors_chart(markup, record);
    if (st == MEED_OK && varies(record, QUALITY)) {
        st = pay_scatter(markup, record, QUALITY);
    }
    if (st == MEED_OK && varies(record, DIALOGUES)) {
        st = pay_scatter(markup, record, DIALOGUES);
    }
    meed_markup_raw(markup, "</div>\n");
    markup->status = markup->status == MEED_OK ? st : markup->status;
}
