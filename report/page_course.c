/* The course of a federation, its traffic, and where the numbers come from; see page.h. */
#include <math.h>
#include <string.h>
#include "report/chart.h"
#include "report/page.h"

static void rounds_table(struct meed_markup *m, const struct meed_run_record *record)
{
    static const struct meed_page_column columns[] = {
        {"round", true},    {"before", true},   {"after", true}, {"gain", true},
        {"budget", true},   {"paid out", true}, {"paid", true},  {"unpaid", true},
        {"excluded", true}, {"absent", true},   {"up", true},    {"down", true},
    };
    meed_page_table_open(m, NULL, columns, MEED_COUNT(columns));
    for (int32_t r = 0; r < record->round_count; r++) {
        const struct meed_run_round *round = &record->rounds[r];
        int64_t states[MEED_RUN_STATE_COUNT] = {0};
        int64_t paid = 0, up = 0, down = 0;
        for (int32_t k = 0; k < record->client_count; k++) {
            states[round->cells[k].state]++;
            paid = meed_run_record_add(paid, round->cells[k].share);
            up = meed_run_record_add(up, MEED_MAX(round->cells[k].bytes_up, 0));
            down = meed_run_record_add(down, MEED_MAX(round->cells[k].bytes_down, 0));
        }
        meed_page_row_open(m);
        meed_page_cell_number(m, meed_numeral_count(round->number));
        if (round->abandoned) {
            meed_markup_raw(m, "<td colspan=\"%zu\">abandoned: nothing was settled</td>",
                            MEED_COUNT(columns) - 1);
            meed_page_row_close(m);
            continue;
        }
        meed_page_cell_number(m, meed_numeral_fixed(round->value_empty, 4, false));
        meed_page_cell_number(m, meed_numeral_fixed(round->value_kept, 4, false));
        meed_page_cell_number(m,
                              meed_numeral_fixed(round->value_kept - round->value_empty, 4, true));
        meed_page_cell_number(m, round->budget < 0 ? meed_numeral_fixed(NAN, 0, false)
                                                   : meed_numeral_count(round->budget));
        meed_page_cell_number(m, meed_numeral_count(paid));
        for (int i = MEED_RUN_PAID; i < MEED_RUN_STATE_COUNT; i++) {
            meed_page_cell_number(m, meed_numeral_count(states[i]));
        }
        meed_page_cell_number(m, meed_numeral_count(states[MEED_RUN_ABSENT]));
        meed_page_cell_number(m, meed_numeral_bytes(up));
        meed_page_cell_number(m, meed_numeral_bytes(down));
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
}

static void merges_table(struct meed_markup *m, const struct meed_run_record *record)
{
    static const struct meed_page_column columns[] = {
        {"round", true},
        {"method", false},
        {"updates", true},
        {"norm of ΔW", true},
        {"missed by a mean of factors", true},
        {"energy kept by the rank", true},
        {"frozen ranks", true},
    };
    bool any = false;
    for (int32_t r = 0; r < record->round_count; r++) {
        const struct meed_run_merge *merge = &record->rounds[r].merge;
        if (!merge->method) {
            continue;
        }
        if (!any) {
            meed_page_heading(m, "What was merged");
            meed_page_table_open(m, NULL, columns, MEED_COUNT(columns));
            any = true;
        }
        meed_page_row_open(m);
        meed_page_cell_number(m, meed_numeral_count(record->rounds[r].number));
        meed_page_cell(m, merge->method);
        meed_page_cell_number(m, meed_numeral_count(merge->updates));
        meed_page_cell_number(m, meed_numeral_fixed(merge->update_norm, 4, false));
        meed_page_cell_number(m, meed_numeral_percent(merge->fedit_error, 1));
        meed_page_cell_number(m, meed_numeral_percent(merge->retained_energy, 1));
        meed_page_cell_number(m, meed_numeral_count(merge->frozen_ranks));
        meed_page_row_close(m);
    }
    if (any) {
        meed_page_table_close(m);
    }
}

enum { SENT, RECEIVED };

static int64_t bytes_of(const struct meed_run_record *record, int32_t k, int direction)
{
    int64_t sum = 0;
    for (int32_t r = 0; r < record->round_count; r++) {
        const struct meed_run_cell *cell = &record->rounds[r].cells[k];
        sum = meed_run_record_add(
            sum, MEED_MAX(direction == SENT ? cell->bytes_up : cell->bytes_down, 0));
    }
    return sum;
}

/* The unit in which the largest value has at most three digits before the point. */
static double unit_of(double largest, const char **name)
{
    static const char *const names[] = {"bytes", "kB", "MB", "GB", "TB"};
    size_t i = 0;
    double unit = 1;
    for (; largest / unit >= 1000 && i + 1 < MEED_COUNT(names); i++) {
        unit *= 1000;
    }
    *name = names[i];
    return unit;
}

static enum meed_status traffic_bars(struct meed_markup *m, const struct meed_run_record *record,
                                     int direction)
{
    struct meed_chart_words words = {direction == SENT ? "Bytes sent by each client"
                                                       : "Bytes received by each client",
                                     "in all rounds.", NULL, NULL};
    struct meed_chart_bar *bars = meed_heap_alloc((size_t)record->client_count, sizeof *bars);
    double largest = 0;
    if (!bars) {
        return MEED_NOMEM;
    }
    for (int32_t k = 0; k < record->client_count; k++) {
        largest = fmax(largest, (double)bytes_of(record, k, direction));
    }
    double unit = unit_of(largest, &words.x);
    for (int32_t k = 0; k < record->client_count; k++) {
        int64_t bytes = bytes_of(record, k, direction);
        bars[k] = (struct meed_chart_bar){.label = record->clients[k],
                                          .value = (double)bytes / unit,
                                          .tint = direction == SENT ? 2 : 5,
                                          .mark = meed_numeral_bytes(bytes)};
    }
    if (largest > 0) {
        meed_chart_bars(m, &words, bars, record->client_count);
    }
    meed_heap_free(bars);
    return MEED_OK;
}

void meed_page_course(struct meed_markup *markup, const struct meed_run_record *record)
{
    if (!record->course || record->round_count == 0 || markup->status != MEED_OK) {
        return; /* a valuation has no course */
    }
    meed_page_heading(markup, "Rounds");
    rounds_table(markup, record);
    merges_table(markup, record);
    meed_markup_raw(markup, "<div class=\"pair\">\n");
    for (int direction = SENT; direction <= RECEIVED && markup->status == MEED_OK; direction++) {
        markup->status = traffic_bars(markup, record, direction);
    }
    meed_markup_raw(markup, "</div>\n");
}

/* ---- provenance --------------------------------------------------------------------------------
 */
static bool is_hash(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

void meed_page_provenance(struct meed_markup *markup, const struct meed_run_record *record)
{
    meed_page_heading(markup, "Where this comes from");
    meed_markup_raw(markup, "<div class=\"scroll\"><table><tbody>\n");
    for (int32_t i = 0; i < record->fact_count; i++) {
        const struct meed_run_fact *fact = &record->facts[i];
        meed_markup_raw(markup, "<tr><th scope=\"row\">");
        meed_markup_text(markup, fact->name);
        meed_markup_raw(markup, "</th><td%s>",
                        is_hash(fact->value) ? " class=\"text hash\"" : " class=\"text\"");
        meed_markup_text(markup, fact->value);
        meed_markup_raw(markup, "</td></tr>\n");
    }
    meed_markup_raw(markup, "</tbody></table></div>\n");
}
