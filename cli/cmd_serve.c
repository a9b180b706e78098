/* meed serve: run an aggregator until its rounds are done.
 *
 * The flags become an aggregator's config (serve_options.h); what happens is one line an event on
 * stderr, with progress while coalitions are scored; the totals come on stdout at the end. SIGINT,
 * SIGTERM and SIGUSR1 stop it with everything kept: exit code 13, and the same command goes on. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/file.h"
#include "cli/certificates.h"
#include "cli/commands.h"
#include "cli/operator_data.h"
#include "cli/progress.h"
#include "cli/serve_options.h"
#include "cli/verdict_text.h"

struct serve {
    struct meed_serve_options options;
    struct meed_progress progress;
    bool progressing;
    struct meed_aggregator_row *rows; /* of the last event, for the end */
    int32_t row_count;
};

static struct meed_aggregator *stop_target; /* for the signal handler */

static void on_signal(int signal_number)
{
    (void)signal_number;
    if (stop_target) {
        meed_aggregator_request_stop(stop_target);
    }
}

static const char *seat_word(enum meed_aggregator_seat seat)
{
    switch (seat) {
    case MEED_SEAT_PAID:
        return "paid";
    case MEED_SEAT_UNPAID:
        return "unpaid";
    case MEED_SEAT_EXCLUDED:
        return "excluded";
    case MEED_SEAT_ABSENT:
        return "absent";
    default:
        return "";
    }
}

static void print_round(const struct meed_aggregator_event *event)
{
    char why[MEED_VERDICT_TEXT_BYTES];
    fprintf(stderr, "round %d settled: utility %.4f to %.4f\n", event->round, event->utility_before,
            event->utility_after);
    for (int32_t i = 0; i < event->row_count; i++) {
        const struct meed_aggregator_row *row = &event->rows[i];
        meed_verdict_text(row->reason, row->remark, why);
        fprintf(stderr, "  %-20s %-9s phi %+.5f ± %.5f  share %lld%s%s\n", row->id,
                seat_word(row->seat), row->phi, row->se, (long long)row->share, why[0] ? "  " : "",
                why);
    }
}

static void print_line(const struct meed_aggregator_event *event)
{
    const char *who = event->client >= 0 ? event->rows[event->client].id : "";
    switch (event->kind) {
    case MEED_AGGREGATOR_LISTENING:
        fprintf(stderr, "listening on port %d, %d rounds, %d clients\n", event->port,
                event->round_count, event->row_count);
        break;
    case MEED_AGGREGATOR_JOINED:
        fprintf(stderr, "%s joined\n", who);
        break;
    case MEED_AGGREGATOR_OPENED:
        fprintf(stderr, "round %d of %d is open\n", event->round, event->round_count);
        break;
    case MEED_AGGREGATOR_UPDATE:
        fprintf(stderr, "round %d: update of %s is in (%d of %d, loss %.4f)\n", event->round, who,
                event->updates_in, event->row_count, event->rows[event->client].train_loss);
        break;
    case MEED_AGGREGATOR_REFUSED:
        fprintf(stderr, "%s: update refused: %s\n", who, event->text);
        break;
    case MEED_AGGREGATOR_SCREENED:
    case MEED_AGGREGATOR_ABANDONED:
    case MEED_AGGREGATOR_WAITING:
        fprintf(stderr, "round %d: %s\n", event->round, event->text);
        break;
    case MEED_AGGREGATOR_SETTLED:
        print_round(event);
        break;
    default:
        break;
    }
}

/* For clients that find the server by a shared folder: whole or absent, never half. */
static void address_write(const char *path, int port)
{
    char host[256], line[300];
    if (gethostname(host, sizeof host) != 0) {
        snprintf(host, sizeof host, "localhost");
    }
    host[sizeof host - 1] = '\0';
    int length = snprintf(line, sizeof line, "%s:%d\n", host, port);
    if (meed_file_write_atomic(path, line, (size_t)length) != MEED_OK) {
        fprintf(stderr, "warning: no client will find this server: %s\n", meed_last_error());
    }
}

static void on_event(void *user, const struct meed_aggregator_event *event)
{
    struct serve *serve = user;
    if (event->kind == MEED_AGGREGATOR_FINISHED || event->kind == MEED_AGGREGATOR_SETTLED) {
        meed_heap_free(serve->rows);
        serve->rows = meed_heap_alloc((size_t)event->row_count, sizeof *serve->rows);
        serve->row_count = serve->rows ? event->row_count : 0;
        for (int32_t i = 0; i < serve->row_count; i++) {
            serve->rows[i] = event->rows[i];
        }
    }
    if (event->kind == MEED_AGGREGATOR_LISTENING && serve->options.address_file) {
        address_write(serve->options.address_file, event->port);
    }
    if (serve->options.quiet) {
        return;
    }
    if (event->kind == MEED_AGGREGATOR_VALUING) {
        if (!serve->progressing) {
            meed_progress_start(&serve->progress, "valuing", "tokens", false);
            serve->progressing = true;
        }
        meed_progress_update(&serve->progress, event->tokens_done, event->tokens_total);
        return;
    }
    if (serve->progressing) {
        meed_progress_finish(&serve->progress);
        serve->progressing = false;
    }
    print_line(event);
}

static void print_end(const struct serve *serve)
{
    const char *state = serve->options.config.state;
    printf("%-20s %16s\n", "client", "paid");
    for (int32_t i = 0; i < serve->row_count; i++) {
        printf("%-20s %16lld\n", serve->rows[i].id, (long long)serve->rows[i].total_share);
    }
    printf("\nadapter  %s/adapter\nledger   %s/ledger.jsonl\n", state, state);
}

static void install_signals(struct meed_aggregator *aggregator)
{
    stop_target = aggregator;
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL); /* Slurm's warning */
}

enum meed_status meed_cmd_serve(int argc, char **argv)
{
    static struct serve serve; /* large, and once a process */
    enum meed_status st = MEED_OK;
    struct meed_aggregator *aggregator = NULL;
    struct meed_operator_data *operator_data = NULL;
    MEED_TRY_OUT(meed_serve_options_parse(argc, argv, &serve.options));
    serve.options.config.observer = on_event;
    serve.options.config.observer_user = &serve;
    const struct meed_aggregator_config *config = &serve.options.config;
    if (config->tls_ca && config->tls_certificate && config->tls_key) {
        MEED_TRY_OUT(meed_certificates_check_server(config->tls_ca, config->tls_certificate,
                                                    config->tls_key));
    }
    MEED_TRY_OUT(
        meed_operator_data_attach(&serve.options.file, &serve.options.config, &operator_data));
    MEED_TRY_OUT(meed_aggregator_create(config, &aggregator));
    install_signals(aggregator);
    MEED_TRY_OUT(meed_aggregator_run(aggregator, serve.options.linger_ms));
    print_end(&serve);
out:
    stop_target = NULL;
    meed_aggregator_destroy(aggregator);
    meed_operator_data_close(operator_data);
    meed_heap_free(serve.rows);
    meed_serve_options_clear(&serve.options);
    return st;
}
