/* Who earned what, who did not and why, and pay against value; see page.h. */
#include <math.h>
#include <stdio.h>
#include "report/chart.h"
#include "report/page.h"

static int64_t total_of(const struct meed_run_record *record)
{
    int64_t total = 0;
    for (int32_t k = 0; k < record->client_count; k++) {
        total = meed_run_record_add(total, record->totals[k]);
    }
    return total;
}

/* Σφ over rounds; errors of different rounds are independent, so their squares add. */
static struct meed_run_cell summed(const struct meed_run_record *record, int32_t k)
{
    struct meed_run_cell sum = {.phi = 0, .se = 0};
    double square = 0;
    for (int32_t r = 0; r < record->round_count; r++) {
        const struct meed_run_cell *cell = &record->rounds[r].cells[k];
        if (isfinite(cell->phi)) {
            sum.phi += cell->phi;
            square += cell->se * cell->se;
            sum.state = cell->state;
        }
    }
    sum.se = sqrt(square);
    return sum;
}

static int32_t best_first(const struct meed_run_record *record, int32_t *order)
{
    for (int32_t k = 0; k < record->client_count; k++) {
        int32_t at = k; /* insertion: equal totals stay in the order of the file */
        for (; at > 0 && record->totals[order[at - 1]] < record->totals[k]; at--) {
            order[at] = order[at - 1];
        }
        order[at] = k;
    }
    return record->client_count;
}

static void pay_table(struct meed_markup *m, const struct meed_run_record *record,
                      const int32_t *order)
{
    static const struct meed_page_column columns[] = {
        {"client", false},    {"credits", true},       {"share", true},
        {"value ± se", true}, {"last verdict", false},
    };
    int64_t total = total_of(record);
    meed_page_table_open(m, NULL, columns, MEED_COUNT(columns));
    for (int32_t i = 0; i < record->client_count; i++) {
        int32_t k = order[i];
        struct meed_run_cell sum = summed(record, k);
        meed_page_row_open(m);
        meed_page_cell(m, record->clients[k]);
        meed_page_cell_number(m, meed_numeral_count(record->totals[k]));
        meed_page_cell_number(m, meed_numeral_percent((double)record->totals[k], (double)total));
        meed_page_cell_number(m, meed_numeral_estimate(sum.phi, sum.se));
        meed_page_cell_state(m, sum.state);
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
}

static enum meed_status pay_bars(struct meed_markup *m, const struct meed_run_record *record,
                                 const int32_t *order)
{
    static const struct meed_chart_words words = {
        "Credits of the whole run", "and each client's part of what was paid.", "credits", NULL};
    struct meed_chart_bar *bars = meed_heap_alloc((size_t)record->client_count, sizeof *bars);
    if (!bars) {
        return MEED_NOMEM;
    }
    int64_t total = total_of(record);
    for (int32_t i = 0; i < record->client_count; i++) {
        double credits = (double)record->totals[order[i]];
        bars[i] = (struct meed_chart_bar){.label = record->clients[order[i]],
                                          .value = credits,
                                          .mark = meed_numeral_percent(credits, (double)total)};
    }
    meed_chart_bars(m, &words, bars, record->client_count);
    meed_heap_free(bars);
    return MEED_OK;
}

static enum meed_status pay_scatter(struct meed_markup *m, const struct meed_run_record *record)
{
    char x_name[128];
    snprintf(x_name, sizeof x_name, "value, all rounds (%.64s)", record->unit);
    struct meed_chart_words words = {"Pay against value",
                                     "The higher the value, the higher the pay; grey clients "
                                     "were not paid in the last round.",
                                     x_name, "credits"};
    struct meed_chart_point *points = meed_heap_alloc((size_t)record->client_count, sizeof *points);
    if (!points) {
        return MEED_NOMEM;
    }
    for (int32_t k = 0; k < record->client_count; k++) {
        struct meed_run_cell sum = summed(record, k);
        points[k] =
            (struct meed_chart_point){.label = record->clients[k],
                                      .x = sum.phi,
                                      .y = (double)record->totals[k],
                                      .x_error = sum.se,
                                      .tint = sum.state == MEED_RUN_PAID ? 0 : MEED_CHART_MUTED};
    }
    meed_chart_scatter(m, &words, points, record->client_count, NULL);
    meed_heap_free(points);
    return MEED_OK;
}

static void lead(struct meed_markup *m, const struct meed_run_record *record)
{
    meed_markup_raw(m, "<p>%s of %s credits were paid out.",
                    meed_numeral_count(total_of(record)).text,
                    meed_numeral_count(record->budget).text);
    const struct meed_run_round *first = record->rounds, *last = meed_run_record_last(record);
    if (last) {
        while (first->abandoned) {
            first++;
        }
        meed_markup_raw(
            m,
            record->course ? " The benchmark's value went from %s to %s "
                           : " The benchmark's value is %s without the clients and %s with "
                             "all of them, in ",
            meed_numeral_fixed(first->value_empty, 4, false).text,
            meed_numeral_fixed(record->course ? last->value_kept : last->value_full, 4, false)
                .text);
        meed_markup_text(m, record->unit);
        meed_markup_raw(m, ".");
    }
    meed_markup_raw(m, "</p>\n");
}

void meed_page_pay(struct meed_markup *markup, const struct meed_run_record *record)
{
    int32_t *order = meed_heap_alloc((size_t)record->client_count + 1, sizeof *order);
    lead(markup, record);
    if (order && best_first(record, order) > 0 && markup->status == MEED_OK) {
        meed_page_heading(markup, "Who earned what");
        pay_table(markup, record, order);
        if (total_of(record) > 0) { /* of nothing there is no picture */
            meed_markup_raw(markup, "<div class=\"pair\">\n");
            markup->status = pay_bars(markup, record, order);
            if (markup->status == MEED_OK) {
                markup->status = pay_scatter(markup, record);
            }
            meed_markup_raw(markup, "</div>\n");
        }
    }
    if (!order) {
        markup->status = MEED_NOMEM;
    }
    meed_heap_free(order);
}
