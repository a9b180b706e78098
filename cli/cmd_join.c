/* meed join: take part in a federation.
 *
 * Opens the model and the data once, dials the aggregator and runs the worker until the federation
 * is over. What happens is told on stderr, one line an event; on a terminal the training of a round
 * is a progress bar. SIGTERM and SIGINT end it at the next step with everything on disk: the same
 * command goes on, and so it does after a kill.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/parse.h"
#include "cli/certificates.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/stop_signal.h"
#include "cli/verdict_text.h"
#include "client/workbench.h"
#include "client/worker.h"
#include "proto/sharing.h"

struct options {
    const char *server, *id, *model, *data, *state, *device;
    const char *tls_ca, *tls_cert, *tls_key, *server_name;
    bool insecure, truncate, quiet, limits_sharing;
    double share_limit;
    enum meed_worker_behaviour behaviour;
    enum meed_dtype dtype;
    enum meed_block_format base;
    int64_t threads, checkpoint_every;
    enum meed_status status;
};

enum {
    KEY_TLS_CA = 256,
    KEY_TLS_CERT,
    KEY_TLS_KEY,
    KEY_SERVER_NAME,
    KEY_INSECURE,
    KEY_BEHAVIOUR,
    KEY_TRUNCATE,
    KEY_DTYPE,
    KEY_BASE,
    KEY_CHECKPOINT_EVERY,
    KEY_DEVICE,
    KEY_SHARE,
};

static const struct argp_option option_rows[] = {
    {"server", 's', "HOST:PORT", 0, "the aggregator", 1},
    {"id", 'i', "NAME", 0, "this client's name, as in its certificate", 1},
    {"model", 'm', "DIR", 0, "base model folder, the same as the aggregator's", 1},
    {"data", 'd', "FILE", 0, "JSON lines: messages, conversations, instruction, prompt, text", 1},
    {"state", 'S', "DIR", 0, "what survives a kill: adapters, checkpoints, receipts", 1},
    {"tls-ca", KEY_TLS_CA, "FILE", 0, "certificate authority of the federation", 2},
    {"tls-cert", KEY_TLS_CERT, "FILE", 0, "this client's certificate", 2},
    {"tls-key", KEY_TLS_KEY, "FILE", 0, "this client's private key", 2},
    {"server-name", KEY_SERVER_NAME, "NAME", 0, "name in the server's certificate, if not HOST", 2},
    {"insecure", KEY_INSECURE, NULL, 0, "plain text, no identity check: for tests", 2},
    {"share-at-most", KEY_SHARE, "WORD", 0,
     "leave rather than share more: all (default), synthetic, none, or the β of a mix", 3},
    {"truncate", KEY_TRUNCATE, NULL, 0, "cut over-long dialogues instead of refusing them", 3},
    {"dtype", KEY_DTYPE, "WORD", 0, "f32 or bf16, of weights and activations (default: f32)", 3},
    {"base", KEY_BASE, "WORD", 0, "frozen weights: dense, int8, int4, nf4 (default: dense)", 3},
    {"device", KEY_DEVICE, "WORD", 0, "cpu, cuda or cuda:N (default: cpu)", 3},
    {"threads", 't', "N", 0, "worker threads (default: all cores)", 3},
    {"checkpoint-every", KEY_CHECKPOINT_EVERY, "N", 0, "steps between checkpoints (default: 50)",
     3},
    {"behaviour", KEY_BEHAVIOUR, "WORD", 0,
     "honest, or idle: return the start unchanged (default: honest)", 4},
    {"quiet", 'q', NULL, 0, "print receipts only", 4},
    {0},
};

static const char documentation[] =
    "Take part in a federation as a client. The data never leaves this machine; what is sent are "
    "compressed changes of a LoRA adapter. Start it before or after the aggregator, stop and "
    "start it at any time: it goes on from --state.\v"
    "Examples:\n"
    "  meed join --server agg.example.org:9443 --id north --model model \\\n"
    "      --data d.jsonl --state state --tls-ca ca.pem \\\n"
    "      --tls-cert client-north.pem --tls-key client-north.key\n"
    "  meed join --server 127.0.0.1:9443 --id a --model M --data D.jsonl \\\n"
    "      --state S --insecure --base nf4\n"
    "  meed join … --share-at-most synthetic   # FedPIT, or not at all";

static error_t word_parse(int key, const char *text, struct options *options)
{
    switch (key) {
    case KEY_BEHAVIOUR:
        if (strcmp(text, "idle") == 0) {
            options->behaviour = MEED_WORKER_IDLE;
        } else if (strcmp(text, "honest") != 0) {
            options->status = MEED_FAIL(MEED_ARG, "--behaviour %.32s; use honest or idle", text);
        }
        break;
    case KEY_DTYPE:
        options->status = meed_workbench_parse_dtype(text, &options->dtype);
        break;
    case KEY_SHARE:
        options->limits_sharing = true;
        options->status = meed_sharing_limit_parse(text, &options->share_limit);
        break;
    case KEY_BASE:
        options->status = meed_command_line_base(text, &options->base);
        break;
    case KEY_DEVICE:
        options->device = text;
        options->status = meed_backend_check_device(text);
        break;
    case 't':
        options->status = meed_parse_i64("--threads", text, 1, 256, &options->threads);
        break;
    case KEY_CHECKPOINT_EVERY:
        options->status =
            meed_parse_i64("--checkpoint-every", text, 0, 1000000, &options->checkpoint_every);
        break;
    case ARGP_KEY_ARG:
        options->status = MEED_FAIL(MEED_ARG, "\"%.64s\" is no option; see `meed help join`", text);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return options->status == MEED_OK ? 0 : EINVAL;
}

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    const struct {
        int key;
        const char **field;
    } texts[] = {
        {'s', &options->server},
        {'i', &options->id},
        {'m', &options->model},
        {'d', &options->data},
        {'S', &options->state},
        {KEY_TLS_CA, &options->tls_ca},
        {KEY_TLS_CERT, &options->tls_cert},
        {KEY_TLS_KEY, &options->tls_key},
        {KEY_SERVER_NAME, &options->server_name},
    };
    for (size_t i = 0; i < MEED_COUNT(texts); i++) {
        if (key == texts[i].key) {
            *texts[i].field = text;
            return 0;
        }
    }
    switch (key) {
    case KEY_INSECURE:
        options->insecure = true;
        return 0;
    case KEY_TRUNCATE:
        options->truncate = true;
        return 0;
    case 'q':
        options->quiet = true;
        return 0;
    default:
        return word_parse(key, text, options);
    }
}

static enum meed_status check_options(const struct options *options)
{
    if (!options->server || !options->id || !options->model || !options->data || !options->state) {
        return MEED_FAIL(MEED_ARG, "--server, --id, --model, --data and --state are needed; see "
                                   "`meed help join`");
    }
    bool any = options->tls_ca || options->tls_cert || options->tls_key;
    bool all = options->tls_ca && options->tls_cert && options->tls_key;
    if (options->insecure && any) {
        return MEED_FAIL(MEED_ARG, "--insecure and --tls-… exclude each other");
    }
    if (!options->insecure && !all) {
        return MEED_FAIL(MEED_ARG, "--tls-ca, --tls-cert and --tls-key are needed (meed provision "
                                   "makes them), or --insecure for a test");
    }
    return MEED_OK;
}

/* ---- what a person sees -----------------------------------------------------------------------
 */

struct screen {
    bool quiet;
    bool drawing; /* a bar is on the terminal's last line */
    char title[48];
    struct meed_progress progress;
};

static void end_bar(struct screen *screen)
{
    if (screen->drawing) {
        meed_progress_finish(&screen->progress);
        screen->drawing = false;
    }
}

static void print_receipt(const struct meed_msg_receipt *receipt)
{
    static const char *const states[MEED_RECEIPT_STATE_COUNT] = {
        [MEED_RECEIPT_PAID] = "paid",
        [MEED_RECEIPT_UNPAID] = "unpaid",
        [MEED_RECEIPT_EXCLUDED] = "excluded",
        [MEED_RECEIPT_ABSENT] = "absent",
    };
    char why[MEED_VERDICT_TEXT_BYTES];
    meed_verdict_text(receipt->reason, receipt->remark, why);
    fprintf(stderr,
            "round %d receipt: %s, phi %+.4f ± %.4f, %lld of %lld credits, %lld in all%s%s\n",
            receipt->round, states[receipt->state], receipt->phi, receipt->standard_error,
            (long long)receipt->share, (long long)receipt->round_budget,
            (long long)receipt->total_share, why[0] ? ": " : "", why);
    if (receipt->privacy[0]) {
        fprintf(stderr, "round %d %s\n", receipt->round, receipt->privacy);
    }
}

static void draw_step(struct screen *screen, const struct meed_worker_event *event)
{
    screen->drawing = true;
    meed_progress_update(&screen->progress, event->step, event->step_count);
    if (event->step == event->step_count) {
        end_bar(screen);
    }
}

static void on_event(void *user, const struct meed_worker_event *event)
{
    struct screen *screen = user;
    if (event->kind == MEED_WORKER_STEP) {
        if (!screen->quiet) {
            draw_step(screen, event);
        }
        return;
    }
    end_bar(screen);
    if (event->kind == MEED_WORKER_RECEIPT) {
        print_receipt(event->receipt);
    }
    if (screen->quiet) {
        return;
    }
    char bytes[16];
    switch (event->kind) {
    case MEED_WORKER_JOINED:
        fprintf(stderr, "joined run %s, %d rounds\n", event->text, event->round_count);
        break;
    case MEED_WORKER_WAITING:
        fprintf(stderr, "connected, waiting for the next round\n");
        break;
    case MEED_WORKER_RETRYING:
        fprintf(stderr, "trying again in %.1f s: %s\n", event->seconds, event->text);
        break;
    case MEED_WORKER_ROUND:
        fprintf(stderr, "round %d of %d: training %lld steps\n", event->round, event->round_count,
                (long long)event->step_count);
        snprintf(screen->title, sizeof screen->title, "round %d", event->round);
        meed_progress_start(&screen->progress, screen->title, "steps", false);
        break;
    case MEED_WORKER_PHASE:
        fprintf(stderr, "round %d: %s\n", event->round, event->text);
        snprintf(screen->title, sizeof screen->title, "%.40s", event->text);
        meed_progress_start(&screen->progress, screen->title,
                            strstr(event->text, "examples") ? "examples" : "steps", false);
        break;
    case MEED_WORKER_OWN:
        fprintf(stderr, "own model, which never leaves: %s\n", event->text);
        break;
    case MEED_WORKER_PUSHED:
        meed_progress_quantity((double)event->bytes, bytes);
        fprintf(stderr, "round %d pushed: loss %.4f, %sB, %.1f %% of the energy, %.1f s\n",
                event->round, event->loss, bytes, 100.0 * event->retained_ratio, event->seconds);
        if (event->epsilon > 0.0) {
            fprintf(stderr,
                    "round %d: epsilon %.4g at delta %g spent so far, any data of this client "
                    "against any other\n",
                    event->round, event->epsilon, event->delta);
        }
        break;
    case MEED_WORKER_LEFT:
        fprintf(stderr, "round %d goes on without this client: %s\n", event->round, event->text);
        break;
    case MEED_WORKER_FINISHED:
        fprintf(stderr, "the federation has finished\n");
        break;
    default:
        break;
    }
}

/* ---- wiring -----------------------------------------------------------------------------------
 */

enum { PEM_MAX_BYTES = 1 << 20 };

struct pems {
    struct meed_buf ca, certificate, key;
    struct meed_rpc_tls tls;
};

static enum meed_status read_pems(const struct options *options, struct pems *pems)
{
    meed_buf_init(&pems->ca, PEM_MAX_BYTES);
    meed_buf_init(&pems->certificate, PEM_MAX_BYTES);
    meed_buf_init(&pems->key, PEM_MAX_BYTES);
    if (options->insecure) {
        return MEED_OK;
    }
    MEED_TRY(meed_certificates_check_client(options->tls_ca, options->tls_cert, options->tls_key));
    MEED_TRY(meed_file_read(options->tls_ca, &pems->ca));
    MEED_TRY(meed_file_read(options->tls_cert, &pems->certificate));
    MEED_TRY(meed_file_read(options->tls_key, &pems->key));
    pems->tls = (struct meed_rpc_tls){.ca_pem = pems->ca.data,
                                      .certificate_pem = pems->certificate.data,
                                      .key_pem = pems->key.data,
                                      .server_name = options->server_name};
    return MEED_OK;
}

static void clear_pems(struct pems *pems)
{
    meed_buf_clear(&pems->ca);
    meed_buf_clear(&pems->certificate);
    meed_buf_clear(&pems->key);
}

static enum meed_status run(const struct options *options)
{
    enum meed_status st = MEED_OK;
    struct screen screen = {.quiet = options->quiet};
    struct meed_workbench bench = {NULL, NULL, NULL, NULL};
    struct meed_rpc_client *rpc = NULL;
    volatile sig_atomic_t *stop = meed_stop_signal_catch();
    struct pems pems = {.tls = {NULL, NULL, NULL, NULL}};
    MEED_TRY_OUT(read_pems(options, &pems));
    struct meed_rpc_client_options dial = {
        .target = options->server,
        .tls = options->insecure ? NULL : &pems.tls,
        .insecure = options->insecure,
        .client_id = options->id,
    };
    MEED_TRY_OUT(meed_workbench_open(options->model, options->data, options->device,
                                     (int)options->threads, &bench));
    MEED_TRY_OUT(meed_rpc_grpc_client_open(&dial, &rpc));
    struct meed_worker_config config = {
        .rpc = rpc,
        .id = options->id,
        .state_folder = options->state,
        .be = bench.be,
        .checkpoint = bench.checkpoint,
        .dataset = bench.dataset,
        .truncate = options->truncate,
        .limits_sharing = options->limits_sharing,
        .share_limit = options->share_limit,
        .dtype = options->dtype,
        .base = options->base,
        .checkpoint_every = options->checkpoint_every,
        .behaviour = options->behaviour,
        .stop = stop,
        .on_event = on_event,
        .user = &screen,
    };
    st = meed_worker_run(&config);
    end_bar(&screen);
out:
    meed_rpc_client_close(rpc);
    meed_workbench_close(&bench);
    clear_pems(&pems);
    return st;
}

enum meed_status meed_cmd_join(int argc, char **argv)
{
    struct options options = {.dtype = MEED_DTYPE_F32, .checkpoint_every = 50};
    const struct argp argp = {option_rows, option_parse, NULL, documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &options, &options.status));
    MEED_TRY(check_options(&options));
    if (options.insecure) {
        fprintf(stderr, "warning: plain text, anybody on the way can read and change updates\n");
    }
    return run(&options);
}
