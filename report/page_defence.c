/* Who was let in, round by round, and why not; see page.h.
 *
 * A grid of one sign a client and round shows at a glance who is out and since when, which no list
 * of reasons does; the list below it has the words of the ledger. Both show remarks on updates that
 * were paid: a remark costs nothing and is the first thing an operator looks for. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "report/page.h"

enum { REASONS_MOST = 200, CLIENTS_MOST = 400 };

static bool is_remark(const struct meed_run_cell *cell)
{
    return cell->state == MEED_RUN_PAID && (cell->remark[0] || cell->reason[0]);
}

static bool is_told(const struct meed_run_cell *cell)
{
    return cell->reason[0] || cell->remark[0];
}

/* The reason, then what the screens saw beside. */
static void write_words(struct meed_markup *m, const struct meed_run_cell *cell)
{
    meed_markup_text(m, cell->reason);
    if (cell->remark[0]) {
        meed_markup_raw(m, cell->reason[0] ? "; remark: " : "remark: ");
        meed_markup_text(m, cell->remark);
    }
}

/* ---- the grid ---------------------------------------------------------------------------------
 */

static const char *sign_of(const struct meed_run_cell *cell)
{
    static const char *const signs[MEED_RUN_STATE_COUNT] = {[MEED_RUN_ABSENT] = "·",
                                                            [MEED_RUN_PAID] = "●",
                                                            [MEED_RUN_UNPAID] = "○",
                                                            [MEED_RUN_EXCLUDED] = "✕"};
    return cell->standing == MEED_RUN_QUARANTINE ? "Q" : is_remark(cell) ? "◐" : signs[cell->state];
}

static void write_sign(struct meed_markup *m, const struct meed_run_round *round,
                       const struct meed_run_cell *cell)
{
    if (round->abandoned) {
        meed_markup_raw(m, "<td class=\"v absent\" title=\"abandoned\">–</td>");
        return;
    }
    meed_markup_raw(m, "<td class=\"v %s%s\" title=\"round %d: %s",
                    meed_run_state_word(cell->state),
                    cell->standing == MEED_RUN_PROBATION ? " probation" : "", round->number,
                    meed_run_state_word(cell->state));
    if (is_told(cell)) {
        meed_markup_raw(m, ", ");
        write_words(m, cell);
    }
    meed_markup_raw(m, "\">%s</td>", sign_of(cell));
}

static void verdict_grid(struct meed_markup *m, const struct meed_run_record *record)
{
    int32_t shown = MEED_MIN(record->client_count, (int32_t)CLIENTS_MOST);
    meed_markup_raw(m, "<p class=\"lead\">● paid, ◐ paid with a remark, ○ unpaid, ✕ excluded, Q in "
                       "quarantine, · absent; framed: on probation</p>\n<div class=\"scroll\">"
                       "<table class=\"verdicts\">\n<thead><tr><th scope=\"col\">round</th>");
    if (record->truth) {
        meed_markup_raw(m, "<th scope=\"col\">attack</th>");
    }
    for (int32_t r = 0; r < record->round_count; r++) {
        meed_markup_raw(m, "<th scope=\"col\" class=\"v\">%d</th>", record->rounds[r].number);
    }
    meed_markup_raw(m, "</tr></thead>\n<tbody>\n");
    for (int32_t k = 0; k < shown; k++) {
        meed_page_row_open(m);
        meed_page_cell(m, record->clients[k]);
        if (record->truth) {
            meed_page_cell(m, record->truth[k].attacks ? record->truth[k].attack : "");
        }
        for (int32_t r = 0; r < record->round_count; r++) {
            write_sign(m, &record->rounds[r], &record->rounds[r].cells[k]);
        }
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
    if (shown < record->client_count) {
        meed_markup_raw(m, "<p>The first %d of %d clients.</p>\n", shown, record->client_count);
    }
}

/* ---- reasons ----------------------------------------------------------------------------------
 */

static bool has_scores(const struct meed_run_record *record)
{
    bool found = false;
    for (int32_t r = 0; r < record->round_count; r++) {
        for (int32_t k = 0; k < record->client_count; k++) {
            found = found || isfinite(record->rounds[r].cells[k].score);
        }
    }
    return found;
}

static void write_reason(struct meed_markup *m, const struct meed_run_record *record, int32_t r,
                         int32_t k, bool scores)
{
    const struct meed_run_cell *cell = &record->rounds[r].cells[k];
    meed_page_row_open(m);
    meed_page_cell_number(m, meed_numeral_count(record->rounds[r].number));
    meed_page_cell(m, record->clients[k]);
    meed_page_cell_state(m, cell->state);
    if (scores) {
        meed_page_cell_number(m, meed_numeral_fixed(cell->score, 2, false));
    }
    meed_markup_raw(m, "<td class=\"text\">");
    write_words(m, cell);
    meed_markup_raw(m, "</td>");
    meed_page_row_close(m);
}

static void reasons_table(struct meed_markup *m, const struct meed_run_record *record, int64_t told)
{
    static const struct meed_page_column columns[] = {{"round", true},
                                                      {"client", false},
                                                      {"verdict", false},
                                                      {"anomaly score", true},
                                                      {"why", false}};
    static const struct meed_page_column plain[] = {
        {"round", true}, {"client", false}, {"verdict", false}, {"why", false}};
    bool scores = has_scores(record);
    int64_t written = 0;
    meed_page_table_open(m,
                         scores ? "An anomaly score of 1 is where a detector finds an update "
                                  "suspicious"
                                : NULL,
                         scores ? columns : plain,
                         scores ? MEED_COUNT(columns) : MEED_COUNT(plain));
    for (int32_t r = 0; r < record->round_count; r++) {
        for (int32_t k = 0; k < record->client_count && written < REASONS_MOST; k++) {
            if (is_told(&record->rounds[r].cells[k])) {
                write_reason(m, record, r, k, scores);
                written++;
            }
        }
    }
    meed_page_table_close(m);
    if (written < told) {
        meed_markup_raw(m,
                        "<p>The first %d of %d verdicts that have a reason; the run&#39;s files "
                        "have the others.</p>\n",
                        (int)written, (int)told);
    }
}

void meed_page_defence(struct meed_markup *markup, const struct meed_run_record *record)
{
    int64_t updates = 0, excluded = 0, remarks = 0, quarantined = 0, told = 0;
    for (int32_t r = 0; r < record->round_count; r++) {
        for (int32_t k = 0; k < record->client_count; k++) {
            const struct meed_run_cell *cell = &record->rounds[r].cells[k];
            updates += cell->state != MEED_RUN_ABSENT;
            excluded += cell->state == MEED_RUN_EXCLUDED;
            quarantined += cell->standing == MEED_RUN_QUARANTINE;
            remarks += is_remark(cell);
            told += is_told(cell);
        }
    }
    if (told == 0 || markup->status != MEED_OK) {
        return; /* everybody was paid without a word */
    }
    meed_page_heading(markup, "Defence");
    meed_markup_raw(markup, "<p>%s of %s updates were excluded", meed_numeral_count(excluded).text,
                    meed_numeral_count(updates).text);
    if (quarantined > 0) {
        meed_markup_raw(markup, ", %s of them in quarantine", meed_numeral_count(quarantined).text);
    }
    meed_markup_raw(markup, "; paid with a remark: %s.</p>\n", meed_numeral_count(remarks).text);
    if (record->course) {
        verdict_grid(markup, record);
    }
    reasons_table(markup, record, told);
}
