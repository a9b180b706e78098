/* See exposition.h. */
#include "server/exposition.h"

#include <string.h>

static const char *seat_word(enum meed_aggregator_seat seat)
{
    static const char *const words[] = {
        [MEED_SEAT_AWAY] = "away",     [MEED_SEAT_JOINED] = "joined",
        [MEED_SEAT_IN] = "update in",  [MEED_SEAT_PAID] = "paid",
        [MEED_SEAT_UNPAID] = "unpaid", [MEED_SEAT_EXCLUDED] = "excluded",
        [MEED_SEAT_ABSENT] = "absent",
    };
    return (size_t)seat < MEED_COUNT(words) ? words[seat] : "?";
}

static enum meed_status metric(struct meed_buf *text, const char *name, const char *type,
                               const char *help)
{
    return meed_buf_printf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static enum meed_status single(struct meed_buf *text, const char *name, const char *type,
                               const char *help, double value)
{
    MEED_TRY(metric(text, name, type, help));
    return meed_buf_printf(text, "%s %.10g\n", name, value);
}

static enum meed_status run_metrics(const struct meed_runner_picture *now, struct meed_buf *text)
{
    MEED_TRY(metric(text, "meed_build_info", "gauge", "Version of this process."));
    MEED_TRY(meed_buf_printf(text, "meed_build_info{version=\"%s\"} 1\n", MEED_RELEASE));
    MEED_TRY(single(text, "meed_round", "gauge", "The present round, from 1.", now->state.round));
    MEED_TRY(single(text, "meed_clients_connected", "gauge", "Open event streams.",
                    (double)now->service.watchers));
    MEED_TRY(single(text, "meed_rounds_settled_total", "counter", "Rounds that were paid.",
                    (double)now->settle.rounds_settled));
    MEED_TRY(single(text, "meed_rounds_abandoned_total", "counter", "Rounds with too few updates.",
                    (double)now->settle.rounds_abandoned));
    MEED_TRY(single(text, "meed_settle_duration_seconds", "gauge",
                    "Screening, valuing and aggregating the last round.",
                    now->settle.last_seconds));
    MEED_TRY(single(text, "meed_eval_coalitions_total", "counter", "Coalitions scored.",
                    (double)now->settle.coalitions));
    MEED_TRY(single(text, "meed_eval_tokens_total", "counter", "Rows fed to score them.",
                    (double)now->settle.tokens));
    MEED_TRY(single(text, "meed_aggregate_fedit_error_ratio", "gauge",
                    "What averaging factors would have lost, of the update's norm.",
                    now->settle.fedit_error));
    MEED_TRY(single(text, "meed_aggregate_retained_energy_ratio", "gauge",
                    "What the cut to the rank kept.", now->settle.retained_energy));
    MEED_TRY(single(text, "meed_ledger_entries", "gauge", "Entries of the signed ledger.",
                    (double)now->ledger_entries));
    return single(text, "meed_store_writable", "gauge",
                  "0 while the state folder cannot be written.", now->writable);
}

static enum meed_status update_metrics(const struct meed_runner_picture *now, struct meed_buf *text)
{
    MEED_TRY(metric(text, "meed_updates_received_total", "counter",
                    "Updates by what became of "
                    "them."));
    for (int i = 0; i < MEED_ROUND_VERDICT_COUNT; i++) {
        enum meed_round_verdict verdict = (enum meed_round_verdict)i;
        if (verdict != MEED_ROUND_OUT_OF_ORDER) {
            MEED_TRY(meed_buf_printf(text, "meed_updates_received_total{result=\"%s\"} %lld\n",
                                     meed_round_verdict_name(verdict),
                                     (long long)now->service.verdicts[i]));
        }
    }
    MEED_TRY(meed_buf_printf(text, "meed_updates_received_total{result=\"broken\"} %lld\n",
                             (long long)now->service.broken));
    MEED_TRY(metric(text, "meed_rejected_updates_total", "counter",
                    "Updates clipped or excluded before valuation."));
    MEED_TRY(meed_buf_printf(text,
                             "meed_rejected_updates_total{reason=\"clipped\"} %lld\n"
                             "meed_rejected_updates_total{reason=\"excluded\"} %lld\n",
                             (long long)now->settle.clipped, (long long)now->settle.excluded));
    MEED_TRY(metric(text, "meed_update_bytes_total", "counter", "Message bytes of adapters."));
    return meed_buf_printf(text,
                           "meed_update_bytes_total{direction=\"up\"} %lld\n"
                           "meed_update_bytes_total{direction=\"down\"} %lld\n",
                           (long long)now->service.bytes_up, (long long)now->service.bytes_down);
}

struct gauge {
    const char *name;
    const char *help;
    double (*value)(const struct meed_aggregator_row *row);
};

static double row_loss(const struct meed_aggregator_row *row)
{
    return row->train_loss;
}

static double row_phi(const struct meed_aggregator_row *row)
{
    return row->phi;
}

static double row_total(const struct meed_aggregator_row *row)
{
    return (double)row->total_share;
}

static enum meed_status client_metrics(struct meed_runner *runner, int32_t count,
                                       struct meed_buf *text)
{
    static const struct gauge gauges[] = {
        {"meed_train_loss", "Self-reported loss of the present update.", row_loss},
        {"meed_contribution_value", "Value of the last settled round, nats a token.", row_phi},
        {"meed_share_credits", "Paid so far.", row_total},
    };
    for (size_t g = 0; g < MEED_COUNT(gauges); g++) {
        MEED_TRY(metric(text, gauges[g].name, "gauge", gauges[g].help));
        for (int32_t i = 0; i < count; i++) {
            struct meed_aggregator_row row;
            meed_board_row(meed_runner_board(runner), i, &row);
            MEED_TRY(meed_buf_printf(text, "%s{client=\"%s\"} %.10g\n", gauges[g].name, row.id,
                                     gauges[g].value(&row)));
        }
    }
    return MEED_OK;
}

/* Reasons are sentences of ours, but they may quote a client: escape them. */
static enum meed_status escape(const char *from, struct meed_buf *text)
{
    for (; *from; from++) {
        const char *entity = *from == '<'   ? "&lt;"
                             : *from == '>' ? "&gt;"
                             : *from == '&' ? "&amp;"
                                            : NULL;
        MEED_TRY(meed_buf_append(text, entity ? entity : from, entity ? strlen(entity) : 1));
    }
    return MEED_OK;
}

static enum meed_status dashboard(struct meed_runner *runner, const struct meed_runner_picture *now,
                                  int32_t count, struct meed_buf *text)
{
    const struct meed_terms *terms = meed_runner_terms(runner);
    MEED_TRY(meed_buf_printf(
        text,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" "
        "content=\"2\"><title>Meed %s</title><style>body{font:15px/1.5 system-ui,sans-serif;margin:"
        "2em auto;max-width:60em;padding:0 1em}table{border-collapse:collapse;width:100%%}th,td{"
        "text-align:left;padding:.3em .6em;border-bottom:1px solid "
        "#8884}td.n,th.n{text-align:right;"
        "font-variant-numeric:tabular-nums}@media(prefers-color-scheme:dark){body{background:#111;"
        "color:#ddd}}</style><h1>%s</h1><p>Round %d of %d: %s. %lld clients connected.%s</p>"
        "<table><tr><th>Client<th>State<th class=n>Loss<th class=n>φ<th class=n>± se<th class=n>"
        "Share<th class=n>Total<th>Remark",
        terms->run_id, terms->run_id, now->state.round, terms->rounds,
        meed_round_phase_name(now->state.phase), (long long)now->service.watchers,
        now->writable ? "" : " <b>The state folder cannot be written.</b>"));
    for (int32_t i = 0; i < count; i++) {
        struct meed_aggregator_row row;
        meed_board_row(meed_runner_board(runner), i, &row);
        MEED_TRY(meed_buf_printf(text,
                                 "<tr><td>%s<td>%s<td class=n>%.4f<td class=n>%+.5f<td class=n>"
                                 "%.5f<td class=n>%lld<td class=n>%lld<td>",
                                 row.id, seat_word(row.seat), row.train_loss, row.phi, row.se,
                                 (long long)row.share, (long long)row.total_share));
        MEED_TRY(escape(row.reason, text));
        MEED_TRY(meed_buf_printf(text, "%s", row.reason[0] && row.remark[0] ? "; " : ""));
        MEED_TRY(escape(row.remark, text));
    }
    return meed_buf_printf(text, "</table></html>\n");
}

enum meed_status meed_exposition_render(void *user, enum meed_metrics_page page,
                                        struct meed_buf *text, bool *good)
{
    struct meed_runner *runner = user;
    struct meed_runner_picture now;
    meed_runner_picture(runner, &now);
    int32_t count = meed_board_count(meed_runner_board(runner));
    if (page == MEED_METRICS_HEALTH) {
        *good = now.writable;
        return meed_buf_printf(text, "%s\n",
                               now.writable ? "ok"
                                            : "the state folder cannot be "
                                              "written");
    }
    if (page == MEED_METRICS_DASHBOARD) {
        return dashboard(runner, &now, count, text);
    }
    MEED_TRY(run_metrics(&now, text));
    MEED_TRY(update_metrics(&now, text));
    return client_metrics(runner, count, text);
}
