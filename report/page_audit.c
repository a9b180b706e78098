/* What leaks, of an audit: figures of all attacks, each against the models' quality, and over what
 * the attacker was given; see page.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "report/chart.h"
#include "report/page.h"

static bool has_quality(const struct meed_run_audit *audit)
{
    int32_t scored = 0;
    for (int32_t m = 0; m < audit->model_count; m++) {
        scored += isfinite(audit->quality[m]) ? 1 : 0;
    }
    return scored > 1;
}

static struct meed_numeral leak_text(const struct meed_run_leak *leak, int32_t model)
{
    struct meed_numeral made = meed_numeral_fixed(leak->value[model], leak->decimals, false);
    if (isfinite(leak->value[model]) && leak->error[model] > 0) {
        const size_t used = strlen(made.text);
        snprintf(made.text + used, sizeof made.text - used, " ± %.*f", leak->decimals,
                 leak->error[model]);
    }
    return made;
}

static void leaks_table(struct meed_markup *m, const struct meed_run_audit *audit)
{
    meed_markup_raw(m, "<div class=\"scroll\"><table>\n");
    meed_page_caption(m, "Figures of the attacks ± one standard error");
    meed_markup_raw(m, "<thead><tr><th scope=\"col\">model</th>");
    if (has_quality(audit)) {
        meed_markup_raw(m, "<th scope=\"col\" class=\"n\">quality, nats per token</th>");
    }
    for (int32_t l = 0; l < audit->leak_count; l++) {
        meed_markup_raw(m, "<th scope=\"col\" class=\"n\">");
        meed_markup_text(m, audit->leaks[l].name);
        meed_markup_raw(m, ", ");
        meed_markup_text(m, audit->leaks[l].unit);
        meed_markup_raw(m, "</th>");
    }
    meed_markup_raw(m, "</tr></thead>\n<tbody>\n");
    for (int32_t i = 0; i < audit->model_count; i++) {
        meed_page_row_open(m);
        meed_page_cell(m, audit->models[i]);
        if (has_quality(audit)) {
            meed_page_cell_number(m,
                                  meed_numeral_estimate(audit->quality[i], audit->quality_se[i]));
        }
        for (int32_t l = 0; l < audit->leak_count; l++) {
            meed_page_cell_number(m, leak_text(&audit->leaks[l], i));
        }
        meed_page_row_close(m);
    }
    meed_page_table_close(m);
}

static enum meed_status leak_scatter(struct meed_markup *m, const struct meed_run_audit *audit,
                                     const struct meed_run_leak *leak)
{
    struct meed_chart_words words = {
        leak->name,
        "against quality: right and low is what one wants; grey is the "
        "floor, which never saw the data.",
        "quality on the benchmark, nats per token", leak->unit};
    struct meed_chart_point *points = meed_heap_alloc((size_t)audit->model_count, sizeof *points);
    if (!points) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < audit->model_count; i++) {
        const bool floor = strcmp(audit->models[i], audit->floor) == 0;
        points[i] = (struct meed_chart_point){.label = audit->models[i],
                                              .x = audit->quality[i],
                                              .y = leak->value[i],
                                              .x_error = audit->quality_se[i],
                                              .y_error = leak->error[i],
                                              .tint = floor ? MEED_CHART_MUTED : 0};
    }
    meed_chart_scatter(m, &words, points, audit->model_count, NULL);
    meed_heap_free(points);
    return MEED_OK;
}

static enum meed_status leak_bars(struct meed_markup *m, const struct meed_run_audit *audit,
                                  const struct meed_run_leak *leak)
{
    struct meed_chart_words words = {leak->name, leak->unit, NULL, NULL};
    struct meed_chart_bar *bars = meed_heap_alloc((size_t)audit->model_count, sizeof *bars);
    int32_t drawn = 0;
    if (!bars) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < audit->model_count; i++) {
        const bool floor = strcmp(audit->models[i], audit->floor) == 0;
        if (isfinite(leak->value[i])) {
            bars[drawn++] = (struct meed_chart_bar){.label = audit->models[i],
                                                    .value = leak->value[i],
                                                    .error = leak->error[i],
                                                    .tint = floor ? MEED_CHART_MUTED : 0,
                                                    .mark = leak_text(leak, i)};
        }
    }
    meed_chart_bars(m, &words, bars, drawn);
    meed_heap_free(bars);
    return MEED_OK;
}

/* Over the tokens of the reply that were given, a line a model but the floor, which is zero. */
static enum meed_status curve_lines(struct meed_markup *m, const struct meed_run_audit *audit)
{
    static const struct meed_chart_words words = {
        "Replies pulled out, over what was given",
        "what comes of the rest, when the beginning of a reply is known.",
        "tokens of the reply given", "gain in ROUGE-L over the floor, %"};
    struct meed_chart_series *series = meed_heap_alloc((size_t)audit->model_count, sizeof *series);
    int32_t drawn = 0;
    if (!series) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < audit->model_count; i++) {
        if (strcmp(audit->models[i], audit->floor) != 0) {
            const int64_t at = (int64_t)i * audit->given_count;
            series[drawn++] =
                (struct meed_chart_series){audit->models[i], audit->given_count, audit->given,
                                           audit->curve + at, audit->curve_se + at};
        }
    }
    meed_chart_lines(m, &words, series, drawn, MEED_CHART_WHISKER);
    meed_heap_free(series);
    return MEED_OK;
}

void meed_page_audit(struct meed_markup *markup, const struct meed_run_record *record)
{
    const struct meed_run_audit *audit = &record->audit;
    if (audit->model_count == 0 || audit->leak_count == 0 || markup->status != MEED_OK) {
        return;
    }
    enum meed_status st = MEED_OK;
    meed_page_heading(markup, "What leaks");
    leaks_table(markup, audit);
    meed_markup_raw(markup, "<p>Low figures say that these attacks fail, not that no attack "
                            "succeeds.</p>\n<div class=\"pair\">\n");
    for (int32_t l = 0; st == MEED_OK && l < audit->leak_count; l++) {
        st = has_quality(audit) ? leak_scatter(markup, audit, &audit->leaks[l])
                                : leak_bars(markup, audit, &audit->leaks[l]);
    }
    if (st == MEED_OK && audit->given_count > 1 && audit->model_count > 1) {
        st = curve_lines(markup, audit);
    }
    meed_markup_raw(markup, "</div>\n");
    markup->status = markup->status == MEED_OK ? st : markup->status;
}
