/* Attacks against defences, over the combinations and seeds of an experiment; see page.h.
 *
 * One table with a row for each kind of attack under each policy, attacks together, so that a
 * reader compares policies by reading down; one pair of ROC charts for each policy, attacks as
 * curves. Their key gives the area that the table gives: the mean over rounds, which the curve of
 * all rounds together need not enclose. */
#include <stdio.h>
#include <string.h>
#include "report/chart.h"
#include "report/page.h"

enum { LABEL_BYTES = 128, POLICIES_MOST = 12 };

/* "swap, 0.3" */
static void name_kind(const struct meed_run_row *row, const struct meed_run_kind *kind,
                      char label[LABEL_BYTES])
{
    snprintf(label, LABEL_BYTES, "%.60s%s%.60s", kind->attack, row->threat[0] ? ", " : "",
             row->threat);
}

/* ---- table ------------------------------------------------------------------------------------
 */

/* Measures of a row beside those of its kinds. */
static bool is_shown(const char *name)
{
    size_t length = strlen(name);
    return strcmp(name, "false_exclusion") == 0 || strcmp(name, "gain_kept") == 0 ||
           (length > 7 && strncmp(name, "axis_", 5) == 0 &&
            strcmp(name + length - 7, "_change") == 0);
}

static void open_table(struct meed_markup *m, const struct meed_run_grid *grid)
{
    static const char *const heads[] = {"updates", "AUROC, screening", "AUROC, all",
                                        "attackers' updates excluded", "attackers' pay"};
    meed_markup_raw(m, "<div class=\"scroll\"><table>\n");
    meed_page_caption(m, "Attackers against honest clients, updates of all seeds together; ± is "
                         "half of Student's 95 % interval over seeds");
    meed_markup_raw(m, "<thead><tr><th scope=\"col\">attack</th>");
    if (grid->policies[0]) {
        meed_markup_raw(m, "<th scope=\"col\">");
        meed_markup_text(m, grid->policies);
        meed_markup_raw(m, "</th>");
    }
    for (size_t i = 0; i < MEED_COUNT(heads); i++) {
        meed_markup_raw(m, "<th scope=\"col\" class=\"n\">");
        meed_markup_text(m, heads[i]);
        meed_markup_raw(m, "</th>");
    }
    for (int32_t i = 0; i < grid->measure_count; i++) {
        if (is_shown(grid->measures[i])) {
            meed_markup_raw(m, "<th scope=\"col\" class=\"n\">");
            meed_markup_text(m, meed_page_measure_of(grid->measures[i]).title);
            meed_markup_raw(m, "</th>");
        }
    }
    meed_markup_raw(m, "</tr></thead>\n<tbody>\n");
}

static void write_kind(struct meed_markup *m, const struct meed_run_grid *grid,
                       const struct meed_run_row *row, const struct meed_run_kind *kind,
                       const char *label)
{
    meed_page_row_open(m);
    meed_page_cell(m, label);
    if (grid->policies[0]) {
        meed_page_cell(m, row->policy);
    }
    meed_page_cell_number(m, meed_numeral_count(kind->updates));
    for (int s = 0; s < MEED_RUN_SCORES; s++) {
        meed_page_cell_number(m, meed_numeral_fixed(kind->roc[s].area, 3, false));
    }
    meed_page_cell_number(m, meed_numeral_percent(kind->excluded, 1));
    meed_page_cell_number(m, meed_numeral_percent(kind->pay, 1));
    for (int32_t i = 0; i < grid->measure_count; i++) {
        if (is_shown(grid->measures[i])) {
            struct meed_page_measure measure = meed_page_measure_of(grid->measures[i]);
            meed_page_cell_number(m, meed_page_measure_text(&measure, row->mean[i], row->half[i]));
        }
    }
    meed_page_row_close(m);
}

/* What an item of the table is: a kind of a row. */
struct item {
    const struct meed_run_row *row;
    const struct meed_run_kind *kind;
    char label[LABEL_BYTES];
    bool done;
};

/* Same labels together, in order of appearance. */
static void write_table(struct meed_markup *m, const struct meed_run_grid *grid, struct item *items,
                        int32_t count)
{
    open_table(m, grid);
    for (int32_t i = 0; i < count; i++) {
        const char *shown = items[i].label;
        for (int32_t j = i; j < count && !items[i].done; j++) {
            if (strcmp(items[j].label, items[i].label) == 0 && !items[j].done) {
                write_kind(m, grid, items[j].row, items[j].kind, shown);
                items[j].done = j > i;
                shown = "";
            }
        }
    }
    meed_page_table_close(m);
}

/* ---- curves -----------------------------------------------------------------------------------
 */

static void draw_policy(struct meed_markup *m, const char *policy, enum meed_run_score score,
                        const struct item *items, int32_t count)
{
    struct meed_chart_detector detectors[MEED_CHART_MOST_SERIES];
    int32_t drawn = 0, found = 0;
    char title[2 * LABEL_BYTES], note[128];
    snprintf(title, sizeof title, "%s%s%.100s",
             score == MEED_RUN_BY_SCREEN ? "Detector ROC: screening alone"
                                         : "Detector ROC: screening, value and guards",
             policy[0] ? ", " : "", policy);
    struct meed_chart_words words = {title, note, "honest updates flagged",
                                     "attackers' updates flagged"};
    for (int32_t i = 0; i < count; i++) {
        const struct meed_roc *roc = &items[i].kind->roc[score];
        if (strcmp(items[i].row->policy, policy) == 0 && roc->count > 0) {
            found++;
            if (drawn < MEED_CHART_MOST_SERIES) {
                detectors[drawn++] = (struct meed_chart_detector){items[i].label, *roc};
            }
        }
    }
    int used = snprintf(note, sizeof note,
                        "updates of all seeds and rounds; the key gives the mean area of the "
                        "rounds, 0.5 is chance.");
    if (found > drawn) {
        snprintf(note + used, sizeof note - (size_t)used, " The first %d of %d.", drawn, found);
    }
    if (drawn > 0) {
        meed_chart_roc(m, &words, detectors, drawn);
    }
}

static bool is_first_of_policy(const struct item *items, int32_t idx)
{
    bool first = true;
    for (int32_t i = 0; i < idx; i++) {
        first = first && strcmp(items[i].row->policy, items[idx].row->policy) != 0;
    }
    return first;
}

/* ---- the section ------------------------------------------------------------------------------
 */
void meed_page_detection(struct meed_markup *markup, const struct meed_run_record *record)
{
    const struct meed_run_grid *grid = &record->grid;
    int32_t count = 0, policies = 0;
    for (int32_t r = 0; r < grid->row_count; r++) {
        count += grid->rows[r].kind_count;
    }
    if (count == 0 || markup->status != MEED_OK) {
        return;
    }
    struct item *items = meed_heap_alloc((size_t)count, sizeof *items);
    if (!items) {
        markup->status = MEED_NOMEM;
        return;
    }
    count = 0;
    for (int32_t r = 0; r < grid->row_count; r++) {
        for (int32_t k = 0; k < grid->rows[r].kind_count; k++) {
            struct item *item = &items[count++];
            *item = (struct item){.row = &grid->rows[r], .kind = &grid->rows[r].kinds[k]};
            name_kind(item->row, item->kind, item->label);
        }
    }
    meed_page_heading(markup, "Attacks and defences");
    write_table(markup, grid, items, count);
    meed_markup_raw(markup, "<div class=\"pair\">\n");
    for (int32_t i = 0; i < count; i++) {
        bool drawn = is_first_of_policy(items, i) && policies++ < POLICIES_MOST;
        for (int s = 0; drawn && s < MEED_RUN_SCORES; s++) {
            draw_policy(markup, items[i].row->policy, (enum meed_run_score)s, items, count);
        }
    }
    meed_markup_raw(markup, "</div>\n");
    if (policies > POLICIES_MOST) {
        meed_markup_raw(markup,
                        "<p>Curves of the first %d of %d policies; the table has all.</p>\n",
                        POLICIES_MOST, policies);
    }
    meed_heap_free(items);
}
