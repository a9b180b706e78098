/* Several runs side by side; see page.h. */
#include <math.h>
#include <string.h>
#include "report/chart.h"
#include "report/page.h"

static void runs_table(struct meed_markup *m, const struct meed_run_record *const *records,
                       int32_t count)
{
    static const struct meed_page_column columns[] = {
        {"run", false},  {"kind", false}, {"clients", true},  {"rounds", true}, {"before", true},
        {"after", true}, {"gain", true},  {"paid out", true}, {"up", true},     {"down", true},
    };
    meed_page_table_open(m, NULL, columns, MEED_COUNT(columns));
    for (int32_t i = 0; i < count; i++) {
        const struct meed_run_record *record = records[i];
        int64_t paid = 0, up = 0, down = 0;
        double before = NAN, after = NAN;
        for (int32_t r = 0; r < record->round_count; r++) {
            const struct meed_run_round *round = &record->rounds[r];
            before = isnan(before) && !round->abandoned ? round->value_empty : before;
            for (int32_t k = 0; k < record->client_count; k++) {
                paid = meed_run_record_add(paid, round->cells[k].share);
                up = meed_run_record_add(up, MEED_MAX(round->cells[k].bytes_up, 0));
                down = meed_run_record_add(down, MEED_MAX(round->cells[k].bytes_down, 0));
            }
        }
        const struct meed_run_round *last = meed_run_record_last(record);
        if (last) {
            after = isfinite(last->value_kept) ? last->value_kept : last->value_full;
        }
        meed_page_row_open(m);
        meed_markup_raw(m, "<td><a href=\"#run-%d\">", i + 1);
        meed_markup_text(m, record->title);
        meed_markup_raw(m, "</a></td>");
        meed_page_cell(m, record->kind);
        meed_page_cell_number(m, meed_numeral_count(record->client_count));
        meed_page_cell_number(m, meed_numeral_count(record->round_count));
        meed_page_cell_number(m, meed_numeral_fixed(before, 4, false));
        meed_page_cell_number(m, meed_numeral_fixed(after, 4, false));
        meed_page_cell_number(m, meed_numeral_fixed(after - before, 4, true));
        meed_page_cell_number(m, meed_numeral_count(paid));
        meed_page_cell_number(m, meed_numeral_bytes(up ? up : -1));
        meed_page_cell_number(m, meed_numeral_bytes(down ? down : -1));
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
}

static double part_of(const struct meed_run_record *record, const char *client)
{
    int32_t k = meed_run_record_find(record, client);
    int64_t total = 0;
    for (int32_t i = 0; i < record->client_count; i++) {
        total = meed_run_record_add(total, record->totals[i]);
    }
    return k < 0 || total == 0 ? NAN : (double)record->totals[k] / (double)total;
}

static bool seen_before(const struct meed_run_record *const *records, int32_t run, int32_t k)
{
    for (int32_t i = 0; i < run; i++) {
        if (meed_run_record_find(records[i], records[run]->clients[k]) >= 0) {
            return true;
        }
    }
    return false;
}

/* Every client of any run, in order of first appearance; its part of each run's pay. */
static void parts_table(struct meed_markup *m, const struct meed_run_record *const *records,
                        int32_t count)
{
    meed_markup_raw(m, "<div class=\"scroll\"><table>\n");
    meed_page_caption(m, "Part of the pay");
    meed_markup_raw(m, "<thead><tr><th scope=\"col\">client</th>");
    for (int32_t i = 0; i < count; i++) {
        if (records[i]->client_count == 0) {
            continue; /* an experiment pays in its cells */
        }
        meed_markup_raw(m, "<th scope=\"col\" class=\"n\">");
        meed_markup_text(m, records[i]->title);
        meed_markup_raw(m, "</th>");
    }
    meed_markup_raw(m, "</tr></thead>\n<tbody>\n");
    for (int32_t run = 0; run < count; run++) {
        for (int32_t k = 0; k < records[run]->client_count; k++) {
            if (seen_before(records, run, k)) {
                continue;
            }
            meed_page_row_open(m);
            meed_page_cell(m, records[run]->clients[k]);
            for (int32_t i = 0; i < count; i++) {
                if (records[i]->client_count > 0) {
                    meed_page_cell_number(
                        m, meed_numeral_percent(part_of(records[i], records[run]->clients[k]), 1));
                }
            }
            meed_page_row_close(m);
        }
    }
    meed_page_table_close(m);
}

static enum meed_status utility_lines(struct meed_markup *m,
                                      const struct meed_run_record *const *records, int32_t count)
{
    static const struct meed_chart_words words = {"Utility over rounds", "after each round.",
                                                  "round", "nats per token"};
    enum meed_status st = MEED_OK;
    size_t total = 0, used = 0;
    for (int32_t i = 0; i < count; i++) {
        total += (size_t)records[i]->round_count;
    }
    struct meed_chart_series *series = meed_heap_alloc((size_t)count, sizeof *series);
    double *numbers = meed_heap_alloc(2 * total + 1, sizeof *numbers);
    if (!series || !numbers) {
        st = MEED_NOMEM;
        goto out;
    }
    int32_t drawn = 0;
    for (int32_t i = 0; i < count; i++) {
        const struct meed_run_record *record = records[i];
        const struct meed_run_round *last = meed_run_record_last(record);
        double *x = numbers + used, *y = x + record->round_count;
        if (!last || !isfinite(last->value_kept)) {
            continue; /* a valuation has no course */
        }
        for (int32_t r = 0; r < record->round_count; r++) {
            x[r] = record->rounds[r].number;
            y[r] = record->rounds[r].value_kept;
        }
        series[drawn++] =
            (struct meed_chart_series){record->title, record->round_count, x, y, NULL};
        used += 2 * (size_t)record->round_count;
    }
    meed_chart_lines(m, &words, series, drawn, MEED_CHART_BAND);
out:
    meed_heap_free(series);
    meed_heap_free(numbers);
    return st;
}

/* An experiment and an audit have no rounds of their own: they are linked, not compared. */
void meed_page_comparison(struct meed_markup *markup, const struct meed_run_record *const *records,
                          int32_t count)
{
    int32_t runs = 0;
    for (int32_t i = 0; i < count; i++) {
        runs += records[i]->round_count > 0;
    }
    if (runs < 2) {
        meed_markup_raw(markup, "<ul>\n");
        for (int32_t i = 0; i < count; i++) {
            meed_markup_raw(markup, "<li><a href=\"#run-%d\">", i + 1);
            meed_markup_text(markup, records[i]->title);
            meed_markup_raw(markup, "</a>, %s</li>\n", records[i]->kind);
        }
        meed_markup_raw(markup, "</ul>\n");
        return;
    }
    meed_markup_raw(markup, "<h2>Side by side</h2>\n");
    runs_table(markup, records, count);
    if (markup->status == MEED_OK) {
        markup->status = utility_lines(markup, records, count);
    }
    parts_table(markup, records, count);
}
