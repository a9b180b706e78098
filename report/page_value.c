/* Values: of every client over rounds, or of one valuation by the benchmark's axes; see page.h. */
#include <math.h>
#include <stdio.h>
#include "report/chart.h"
#include "report/page.h"

/* ---- one valuation -----------------------------------------------------------------------------
 */
static enum meed_status value_bars(struct meed_markup *m, const struct meed_run_record *record,
                                   const char *title, const char *note, const double *phi,
                                   const double *se)
{
    struct meed_chart_words words = {title, note, record->unit, NULL};
    struct meed_chart_bar *bars = meed_heap_alloc((size_t)record->client_count, sizeof *bars);
    if (!bars) {
        return MEED_NOMEM;
    }
    const struct meed_run_cell *cells = record->rounds[0].cells;
    for (int32_t k = 0; k < record->client_count; k++) {
        bars[k] =
            (struct meed_chart_bar){.label = record->clients[k],
                                    .value = phi ? phi[k] : cells[k].phi,
                                    .error = se ? se[k] : cells[k].se,
                                    .tint = cells[k].state == MEED_RUN_PAID ? 0 : MEED_CHART_MUTED};
        bars[k].mark = meed_numeral_estimate(bars[k].value, bars[k].error);
    }
    meed_chart_bars(m, &words, bars, record->client_count);
    meed_heap_free(bars);
    return MEED_OK;
}

static enum meed_status one_valuation(struct meed_markup *m, const struct meed_run_record *record)
{
    meed_markup_raw(m, "<div class=\"pair\">\n");
    MEED_TRY(value_bars(m, record, "Value of each client", "± one standard error; grey: not paid.",
                        NULL, NULL));
    for (int32_t a = 0; a < record->axis_count; a++) {
        char title[128];
        snprintf(title, sizeof title, "On the axis %.80s", record->axes[a].name);
        MEED_TRY(value_bars(m, record, title, NULL, record->axes[a].phi, record->axes[a].se));
    }
    meed_markup_raw(m, "</div>\n");
    return MEED_OK;
}

/* ---- many rounds -------------------------------------------------------------------------------
 */
enum { FIELD_PHI, FIELD_LOSS };

/* One series a client, of a field of its cells; *block owns all numbers. */
static enum meed_status series_of(const struct meed_run_record *record, int field,
                                  struct meed_chart_series **series, double **block)
{
    size_t clients = (size_t)MEED_MIN(record->client_count, (int32_t)MEED_CHART_MOST_SERIES);
    size_t rounds = (size_t)record->round_count;
    *series = meed_heap_alloc(clients, sizeof **series);
    *block = meed_heap_alloc(rounds * (1 + 2 * clients), sizeof **block);
    if (!*series || !*block) {
        return MEED_NOMEM;
    }
    double *x = *block;
    for (size_t k = 0; k < clients; k++) {
        double *y = x + rounds * (1 + 2 * k), *error = y + rounds;
        (*series)[k] = (struct meed_chart_series){.name = record->clients[k],
                                                  .count = record->round_count,
                                                  .x = x,
                                                  .y = y,
                                                  .error = field == FIELD_PHI ? error : NULL};
        for (size_t r = 0; r < rounds; r++) {
            const struct meed_run_cell *cell = &record->rounds[r].cells[k];
            x[r] = record->rounds[r].number;
            y[r] = field == FIELD_PHI ? cell->phi : cell->loss;
            error[r] = cell->se;
        }
    }
    return MEED_OK;
}

static enum meed_status client_lines(struct meed_markup *m, const struct meed_run_record *record,
                                     int field, const struct meed_chart_words *words)
{
    struct meed_chart_series *series = NULL;
    double *block = NULL;
    enum meed_status st = series_of(record, field, &series, &block);
    if (st == MEED_OK) {
        meed_chart_lines(m, words, series,
                         MEED_MIN(record->client_count, (int32_t)MEED_CHART_MOST_SERIES),
                         field == FIELD_PHI ? MEED_CHART_WHISKER : MEED_CHART_BAND);
    }
    meed_heap_free(series);
    meed_heap_free(block);
    return st;
}

/* Before round 1, then after every round: with the clients that were kept, and with all. */
static enum meed_status utility_lines(struct meed_markup *m, const struct meed_run_record *record)
{
    size_t count = (size_t)record->round_count + 1;
    double *x = meed_heap_alloc(3 * count, sizeof *x);
    if (!x) {
        return MEED_NOMEM;
    }
    double *kept = x + count, *full = kept + count;
    bool first = true, differ = false;
    kept[0] = full[0] = NAN;
    for (int32_t r = 0; r < record->round_count; r++) {
        const struct meed_run_round *round = &record->rounds[r];
        x[r + 1] = round->number;
        kept[r + 1] = round->value_kept;
        full[r + 1] = round->value_full;
        differ = differ || isfinite(round->value_full);
        if (first && !round->abandoned) {
            kept[0] = full[0] = round->value_empty;
            first = false;
        }
    }
    struct meed_chart_words words = {"Utility over rounds",
                                     "The benchmark's value at round 0 is "
                                     "that of the start.",
                                     "round", record->unit};
    struct meed_chart_series series[] = {
        {"merged: without the excluded", (int32_t)count, x, kept, NULL},
        {"had every update been merged", (int32_t)count, x, full, NULL},
    };
    meed_chart_lines(m, &words, series, differ ? 2 : 1, MEED_CHART_BAND);
    meed_heap_free(x);
    return MEED_OK;
}

static enum meed_status many_rounds(struct meed_markup *m, const struct meed_run_record *record)
{
    struct meed_chart_words value = {"Value of each client over rounds", "± one standard error.",
                                     "round", record->unit};
    struct meed_chart_words loss = {"Training loss", "as the clients report it.", "round",
                                    "nats per token"};
    meed_markup_raw(m, "<div class=\"pair\">\n");
    MEED_TRY(utility_lines(m, record));
    MEED_TRY(client_lines(m, record, FIELD_PHI, &value));
    MEED_TRY(client_lines(m, record, FIELD_LOSS, &loss));
    meed_markup_raw(m, "</div>\n");
    if (record->client_count > MEED_CHART_MOST_SERIES) {
        meed_markup_raw(m, "<p class=\"lead\">The first %d of %d clients are drawn.</p>\n",
                        MEED_CHART_MOST_SERIES, record->client_count);
    }
    return MEED_OK;
}

void meed_page_value(struct meed_markup *markup, const struct meed_run_record *record)
{
    if (record->client_count == 0 || record->round_count == 0 || markup->status != MEED_OK) {
        return;
    }
    meed_page_heading(markup, "What it was worth");
    markup->status = record->course ? many_rounds(markup, record) : one_valuation(markup, record);
}
