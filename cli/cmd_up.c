/* meed up: a whole federation on this machine, with real processes and a real network.
 *
 * The aggregator runs in this process, each client is a `meed join` of its own that dials it over
 * gRPC with its own certificate: what works here works on three machines. Keys are made on the
 * first start and kept in STATE/keys; clients write to STATE/clients/ID. Started again on the same
 * state the run goes on where it stood. Ctrl-C stops everything at a safe place. A client that
 * gives up (bad data, say) ends the run with its sentence and its code if those left cannot make
 * the quorum; one that was killed may come back by hand and is waited for.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "cli/certificates.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/federation_file.h"
#include "cli/live_table.h"
#include "cli/operator_data.h"
#include "cli/verdict_text.h"

extern char **environ;

struct options {
    const char *file;
    const char *state;
    const char *json;
    const char *device;
    bool quiet;
    bool insecure;
    int64_t seed; /* -1: the file's */
    int64_t metrics_port;
    enum meed_status status; /* of parsing */
};

static const struct argp_option option_rows[] = {
    {"state", 's', "DIR", 0, "folder of keys, adapters, ledger and logs (default: out/NAME)", 0},
    {"json", 'j', "FILE", 0, "write the report here, after every round", 0},
    {"seed", 'S', "N", 0, "instead of the file's seed", 0},
    {"device", 'd', "WORD", 0, "of everybody, instead of the file's: cpu, cuda or cuda:N", 0},
    {"metrics-port", 'm', "PORT", 0, "serve /metrics and /healthz here (default: off)", 0},
    {"insecure", 'i', NULL, 0, "plain text instead of mutual TLS", 0},
    {"quiet", 'q', NULL, 0, "print the final table only", 0},
    {0},
};

static error_t option_parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 's':
        options->state = text;
        break;
    case 'j':
        options->json = text;
        break;
    case 'd':
        options->device = text;
        options->status = meed_backend_check_device(text);
        return options->status == MEED_OK ? 0 : EINVAL;
    case 'S':
        options->status = meed_parse_i64("--seed", text, 0, INT64_MAX, &options->seed);
        return options->status == MEED_OK ? 0 : EINVAL;
    case 'm':
        options->status = meed_parse_i64("--metrics-port", text, 1, 65535, &options->metrics_port);
        return options->status == MEED_OK ? 0 : EINVAL;
    case 'i':
        options->insecure = true;
        break;
    case 'q':
        options->quiet = true;
        break;
    case ARGP_KEY_ARG:
        if (options->file) {
            options->status = MEED_FAIL(MEED_ARG, "one federation file, not also \"%.64s\"", text);
            return EINVAL;
        }
        options->file = text;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char documentation[] =
    "Run the federation that FILE describes on this machine: an aggregator and one process a "
    "client, over gRPC with mutual TLS.\v"
    "Examples:\n"
    "  meed up examples/tiny/federation.yaml\n"
    "  meed up federation.yaml --state runs/7 --seed 7 --json report.json\n\n"
    "Run it again with the same --state to go on after a stop.\n\n"
    "FILE is YAML; paths are relative to it. Needed are\n"
    "  model, benchmark, clients: a list of {id, data, behaviour: honest|idle,\n"
    "    device: the federation's}\n"
    "and these have defaults:\n"
    "  name: federation, listen: 127.0.0.1:0, rounds: 3, quorum: all,\n"
    "  deadline: 10m, budget: 1000 a round, seed: 1, clip: 3,\n"
    "  server_threads: all, client_threads: 1, device: cpu|cuda|cuda:N,\n"
    "  aggregation: svd|fedavg|ffa|rolora|stack|fedex|median|trimmed|krum|\n"
    "    multikrum|normclip|fltrust, frozen_rank: 128 (stack, fedex),\n"
    "  defence: {norm, replay, duplicate, span, dispersion, direction, gap, idle,\n"
    "    unlike, clique: off|flag|exclude (exclude for norm, replay, duplicate,\n"
    "    unlike, clique, off for idle, else flag; span never excludes),\n"
    "    quarantine: {strikes: 0 (never), rounds: 1, probation: 1}}\n"
    "  weights: uniform|samples|contribution, sample_cap: 4\n"
    "  robust: {attackers: 0 and selected: all others (krum, multikrum),\n"
    "    trim: 0.2 (trimmed), norm_multiple: 1 (normclip)}\n"
    "  server: {optimiser: none|avgm|adagrad|yogi|adam, lr: 1 or 1e-3,\n"
    "    beta1: 0.9, beta2: 0.99, tau: 1e-3} (with fedavg, ffa, rolora)\n"
    "  repair: {data: FILE of the operator's own dialogues, steps: 0 after\n"
    "    each merge, lr: as training} (fltrust needs the data too)\n"
    "  training: {method: fedit|fedprox|scaffold|fedpit, steps: 50,\n"
    "    batch_tokens: 1024, accumulation: 1, sequence_tokens: 512,\n"
    "    warmup: 2, rank: 8, lr: 2e-4,\n"
    "    lr_min: lr/10, alpha: 2*rank, rslora: false, dropout: 0,\n"
    "    weight_decay: 0, clip: 1, prox_mu: 0 (fedprox: 0.01),\n"
    "    targets: all,\n"
    "    with fedpit share: synthetic|mix|none, beta: 0.5 and\n"
    "    mix: product|factors (share: mix), synthesis: {candidates: 32,\n"
    "    keep: candidates/2, instruction_demos: 8, response_demos: 4,\n"
    "    rouge_max: 0.7, retries: 3, turns: 0 (the demonstration's),\n"
    "    opening_words, temperature: 0, form: dialogue|tasks,\n"
    "    score: ifs|ppl|ifd|random},\n"
    "    privacy: {clip, noise (in multiples of clip), delta: 1e-5}}\n"
    "  codec: {values: f32|bf16|int8|int4, density: 1, density_a, density_b,\n"
    "    group: 64, zstd: 3}\n"
    "  pay: {rule: shrunk|proportional|equal|samples (clients' word),\n"
    "    reputation: 0 (weight of earlier pay), floor: 0 (share split evenly),\n"
    "    method: exact|loo|permutation|owen|banzhaf|gradient|auto,\n"
    "    path: auto|stack|merge, bootstrap: 1000, guard_z: 2.576}";

enum { KEYS_BYTES = 1100 };

struct child {
    pid_t pid; /* 0: gone */
    const struct meed_federation_client *client;
    char log[MEED_PATH_BYTES];
};

struct up {
    struct options options;
    struct meed_federation_file file;
    char state[1024];
    char report[MEED_PATH_BYTES]; /* named by --json, or in the state folder */
    struct meed_live_table table;
    struct meed_operator_data *operator_data; /* NULL: none */
    struct meed_aggregator *aggregator;
    struct child children[MEED_FEDERATION_MAX_CLIENTS];
    int gave_up;        /* clients that ended by themselves, for a reason */
    char despair[1024]; /* the reason that leaves too few, "" if none */
    int despair_code;   /* that client's exit code */
    atomic_bool stopping;
    int64_t start_ns;
};

static struct meed_aggregator *stop_target; /* for the signal handler */

static void on_signal(int signal_number)
{
    (void)signal_number;
    if (stop_target) {
        meed_aggregator_request_stop(stop_target);
    }
}

/* --- events → table ------------------------------------------------------------------------- */
static const char *seat_word(enum meed_aggregator_seat seat)
{
    switch (seat) {
    case MEED_SEAT_AWAY:
        return "away";
    case MEED_SEAT_JOINED:
        return "training";
    case MEED_SEAT_IN:
        return "pushed";
    case MEED_SEAT_PAID:
        return "paid";
    case MEED_SEAT_UNPAID:
        return "unpaid";
    case MEED_SEAT_EXCLUDED:
        return "excluded";
    case MEED_SEAT_ABSENT:
        return "absent";
    }
    return "?";
}

static void rows_to_table(struct up *up, const struct meed_aggregator_event *event)
{
    char why[MEED_VERDICT_TEXT_BYTES];
    pthread_mutex_lock(&up->table.mutex);
    up->table.round = event->round;
    up->table.rounds = event->round_count;
    for (int32_t i = 0; i < event->row_count; i++) {
        const struct meed_aggregator_row *row = &event->rows[i];
        struct meed_live_client *client = meed_live_client(&up->table, row->id);
        if (!client) {
            continue;
        }
        snprintf(client->state, sizeof client->state, "%s", seat_word(row->seat));
        client->loss = row->bytes_up > 0 ? row->train_loss : NAN;
        client->bytes_up = row->bytes_up;
        client->bytes_down = row->bytes_down;
        client->valued = event->kind == MEED_AGGREGATOR_SETTLED || client->valued;
        client->phi = row->phi;
        client->se = row->se;
        client->share = row->share;
        client->total = row->total_share;
        meed_verdict_text(row->reason, row->remark, why);
        snprintf(client->reason, sizeof client->reason, "%.*s", MEED_LIVE_TEXT - 1, why);
    }
    pthread_mutex_unlock(&up->table.mutex);
}

static void phase_set(struct up *up, const char *phase, int64_t done, int64_t total)
{
    pthread_mutex_lock(&up->table.mutex);
    snprintf(up->table.phase, sizeof up->table.phase, "%s", phase);
    up->table.done = done;
    up->table.total = total;
    pthread_mutex_unlock(&up->table.mutex);
}

static void settled(struct up *up, const struct meed_aggregator_event *event)
{
    pthread_mutex_lock(&up->table.mutex);
    up->table.utility_before = event->utility_before;
    up->table.utility_after = event->utility_after;
    pthread_mutex_unlock(&up->table.mutex);
    phase_set(up, "settled", 0, 0);
    if (!up->options.quiet) {
        meed_live_print_round(&up->table, stderr);
        fputc('\n', stderr);
    }
}

static void say_client(struct up *up, const struct meed_aggregator_event *event, const char *what)
{
    char line[512];
    if (event->client >= 0 && event->client < event->row_count) {
        snprintf(line, sizeof line, "round %d: %s %s%s%.300s", event->round,
                 event->rows[event->client].id, what, event->text[0] ? ": " : "", event->text);
        meed_live_say(&up->table, line);
    }
}

static void on_event(void *user, const struct meed_aggregator_event *event)
{
    struct up *up = user;
    char line[512];
    rows_to_table(up, event);
    switch (event->kind) {
    case MEED_AGGREGATOR_OPENED:
        phase_set(up, "training", 0, 0);
        break;
    case MEED_AGGREGATOR_UPDATE:
        if (!up->table.terminal) {
            say_client(up, event, "pushed its update");
        }
        break;
    case MEED_AGGREGATOR_REFUSED:
        say_client(up, event, "refused");
        break;
    case MEED_AGGREGATOR_CLOSED:
        phase_set(up, "screening", 0, 0);
        break;
    case MEED_AGGREGATOR_VALUING:
        phase_set(up, "valuing", event->tokens_done, event->tokens_total);
        break;
    case MEED_AGGREGATOR_SETTLED:
        settled(up, event);
        return;
    case MEED_AGGREGATOR_ABANDONED:
    case MEED_AGGREGATOR_WAITING:
        snprintf(line, sizeof line, "round %d: %.400s", event->round, event->text);
        meed_live_say(&up->table, line);
        break;
    default:
        break;
    }
    meed_live_draw(&up->table, event->kind != MEED_AGGREGATOR_VALUING);
}

/* --- clients --------------------------------------------------------------------------------- */
static enum meed_status child_spawn(struct up *up, struct child *child, const char *server)
{
    const struct meed_federation_client *client = child->client;
    char folder[MEED_PATH_BYTES];
    char ca[MEED_PATH_BYTES];
    char certificate[MEED_PATH_BYTES];
    char key[MEED_PATH_BYTES];
    char threads[16];
    snprintf(folder, sizeof folder, "%s/clients/%s", up->state, client->id);
    snprintf(child->log, sizeof child->log, "%s/clients/%s.log", up->state, client->id);
    snprintf(ca, sizeof ca, "%s/keys/ca.pem", up->state);
    snprintf(certificate, sizeof certificate, "%s/keys/client-%s.pem", up->state, client->id);
    snprintf(key, sizeof key, "%s/keys/client-%s.key", up->state, client->id);
    snprintf(threads, sizeof threads, "%d", up->file.client_threads);
    MEED_TRY(meed_file_make_folder(folder));
    const char *argv[32] = {
        "meed",        "--log",
        "info",        "join",
        "--server",    server,
        "--id",        client->id,
        "--model",     up->file.model,
        "--data",      client->data,
        "--state",     folder,
        "--threads",   threads,
        "--behaviour", client->idle ? "idle" : "honest",
        "--device",    up->options.device ? up->options.device : client->device};
    int argc = 20;
    if (up->options.insecure) {
        argv[argc++] = "--insecure";
    } else {
        const char *tls[] = {"--tls-ca", ca, "--tls-cert", certificate, "--tls-key", key};
        memcpy(argv + argc, tls, sizeof tls);
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, child->log,
                                     O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    posix_spawnattr_t attributes; /* its own group: Ctrl-C reaches clients through us, in order */
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    int code = posix_spawn(&child->pid, "/proc/self/exe", &actions, &attributes,
                           (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (code != 0) {
        child->pid = 0;
        return MEED_FAIL(MEED_IO, "cannot start client %s: %s", client->id, strerror(code));
    }
    return MEED_OK;
}

static enum meed_status children_spawn(struct up *up)
{
    char server[64];
    snprintf(server, sizeof server, "127.0.0.1:%d", meed_aggregator_port(up->aggregator));
    for (int32_t i = 0; i < up->file.client_count; i++) {
        up->children[i].client = &up->file.clients[i];
        MEED_TRY(child_spawn(up, &up->children[i], server));
    }
    return MEED_OK;
}

/* The sentence that a client ended with: behind the last "meed: <status>: " of its log. */
static void last_words(const struct child *child, char words[512])
{
    struct meed_buf log;
    meed_buf_init(&log, 64u << 20);
    snprintf(words, 512, "see %.400s", child->log);
    if (meed_file_read(child->log, &log) == MEED_OK && log.data) {
        const char *last = NULL;
        for (const char *at = log.data; (at = strstr(at, "meed: ")) != NULL; at++) {
            last = at == log.data || at[-1] == '\n' ? at + strlen("meed: ") : last;
        }
        const char *colon = last ? strstr(last, ": ") : NULL;
        if (colon) {
            snprintf(words, 512, "%.*s", (int)MEED_MIN(strcspn(colon + 2, "\n"), (size_t)500),
                     colon + 2);
        }
    }
    meed_buf_clear(&log);
}

static void child_ended(struct up *up, const struct child *child, int how)
{
    char words[512], line[MEED_PATH_BYTES + 640];
    int code = WIFEXITED(how) ? WEXITSTATUS(how) : -1;
    if (code == 0 ||
        (up->stopping && (code < 0 || code == meed_status_exit_code(MEED_CANCELLED)))) {
        return;
    }
    if (code < 0) {
        snprintf(line, sizeof line, "client %s was killed by signal %d; its log is %s",
                 child->client->id, WTERMSIG(how), child->log);
        meed_live_say(&up->table, line);
        return;
    }
    last_words(child, words);
    snprintf(line, sizeof line, "client %s gave up: %s", child->client->id, words);
    if (up->file.client_count - ++up->gave_up >= up->file.quorum || up->despair[0]) {
        meed_live_say(&up->table, line);
        return;
    }
    snprintf(up->despair, sizeof up->despair, "%.1000s", line);
    up->despair_code = code;
    meed_aggregator_request_stop(up->aggregator);
}

/* Reaps what has ended. Returns how many still run. */
static int children_reap(struct up *up)
{
    int running = 0;
    for (int32_t i = 0; i < up->file.client_count; i++) {
        struct child *child = &up->children[i];
        int how = 0;
        if (child->pid > 0 && waitpid(child->pid, &how, WNOHANG) == child->pid) {
            child->pid = 0;
            child_ended(up, child, how);
        }
        running += child->pid > 0;
    }
    return running;
}

static void *children_watch(void *user)
{
    while (children_reap(user) > 0) {
        meed_clock_sleep_ms(100);
    }
    return NULL;
}

static void children_stop(struct up *up)
{
    up->stopping = true;
    for (int32_t i = 0; i < up->file.client_count; i++) {
        if (up->children[i].pid > 0) {
            kill(up->children[i].pid, SIGTERM);
        }
    }
}

/* --- the run --------------------------------------------------------------------------------- */
static enum meed_status keys_make(struct up *up, char folder[KEYS_BYTES])
{
    snprintf(folder, KEYS_BYTES, "%s/keys", up->state);
    if (up->options.insecure || meed_file_exists(folder)) {
        return MEED_OK;
    }
    const char *ids[MEED_FEDERATION_MAX_CLIENTS];
    for (int32_t i = 0; i < up->file.client_count; i++) {
        ids[i] = up->file.clients[i].id;
    }
    return meed_certificates_provision(folder, "localhost,127.0.0.1", ids, up->file.client_count);
}

static enum meed_status aggregator_open(struct up *up, const char keys[KEYS_BYTES])
{
    char ca[MEED_PATH_BYTES];
    char certificate[MEED_PATH_BYTES];
    char key[MEED_PATH_BYTES];
    char roster[MEED_PATH_BYTES];
    snprintf(ca, sizeof ca, "%.1090s/ca.pem", keys);
    snprintf(certificate, sizeof certificate, "%.1090s/server.pem", keys);
    snprintf(key, sizeof key, "%.1090s/server.key", keys);
    snprintf(roster, sizeof roster, "%.1090s/roster.json", keys);
    const char *ids[MEED_FEDERATION_MAX_CLIENTS];
    for (int32_t i = 0; i < up->file.client_count; i++) {
        ids[i] = up->file.clients[i].id;
    }
    struct meed_aggregator_config config;
    meed_federation_file_config(&up->file, &config);
    config.state = up->state;
    config.listen = up->file.listen;
    config.clients = ids;
    config.client_count = up->file.client_count;
    config.insecure = up->options.insecure;
    if (up->options.device) {
        config.device = up->options.device;
    }
    if (!up->options.insecure) {
        config.roster = roster;
        config.tls_ca = ca;
        config.tls_certificate = certificate;
        config.tls_key = key;
    }
    config.metrics_port = (int)up->options.metrics_port;
    config.report = up->report;
    config.observer = on_event;
    config.observer_user = up;
    MEED_TRY(meed_operator_data_attach(&up->file, &config, &up->operator_data));
    return meed_aggregator_create(&config, &up->aggregator);
}

/* A client's failure as ours: its sentence, its code. */
static enum meed_status despair(const struct up *up)
{
    for (int i = 1; i < MEED_STATUS_COUNT; i++) {
        if (meed_status_exit_code((enum meed_status)i) == up->despair_code) {
            return MEED_FAIL((enum meed_status)i, "%s", up->despair);
        }
    }
    return MEED_FAIL(MEED_BUG, "%s", up->despair);
}

/* What only clients read: a misspelt path is told before anything starts. */
static enum meed_status check_data(const struct up *up)
{
    for (int32_t i = 0; i < up->file.client_count; i++) {
        const struct meed_federation_client *client = &up->file.clients[i];
        if (!meed_file_exists(client->data)) {
            return MEED_FAIL(MEED_NOT_FOUND, "%s: client %s has no data file %s", up->options.file,
                             client->id, client->data);
        }
    }
    return MEED_OK;
}

static void signals_install(struct up *up)
{
    stop_target = up->aggregator;
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL); /* Slurm's warning */
}

static enum meed_status run_all(struct up *up)
{
    char keys[KEYS_BYTES];
    pthread_t watcher;
    bool watching = false;
    enum meed_status st = MEED_OK;
    MEED_TRY(meed_file_make_folder(up->state));
    MEED_TRY(keys_make(up, keys));
    MEED_TRY(aggregator_open(up, keys));
    signals_install(up);
    st = children_spawn(up);
    if (st == MEED_OK) {
        watching = pthread_create(&watcher, NULL, children_watch, up) == 0;
        st = meed_aggregator_run(up->aggregator, 20000);
    }
    if (st != MEED_OK) {
        children_stop(up);
    }
    if (watching) {
        pthread_join(watcher, NULL);
    }
    if (st == MEED_CANCELLED && up->despair[0]) {
        st = despair(up);
    }
    stop_target = NULL;
    meed_aggregator_destroy(up->aggregator);
    meed_operator_data_close(up->operator_data);
    return st;
}

static void print_end(struct up *up)
{
    char total[32], budget[32];
    int64_t paid = 0;
    phase_set(up, "finished", 0, 0);
    meed_live_print_totals(&up->table, stdout);
    for (int32_t i = 0; i < up->table.client_count; i++) {
        paid += up->table.clients[i].total;
    }
    meed_live_credits(paid, total);
    meed_live_credits(up->file.budget, budget);
    printf("\n  paid out: %s of %s credits in %.0f s\n", total, budget,
           meed_clock_seconds_since(up->start_ns));
    printf("  adapter:  %s/adapter\n  ledger:   %s/ledger.jsonl\n  report:   %s\n", up->state,
           up->state, up->report);
    printf("  try:      meed chat --model %s --adapter %s/adapter\n", up->file.model, up->state);
}

enum meed_status meed_cmd_up(int argc, char **argv)
{
    static struct up up;
    up = (struct up){.options = {.seed = -1}, .start_ns = meed_clock_monotonic_ns()};
    struct argp argp = {option_rows, option_parse, "FILE", documentation, NULL, NULL, NULL};
    MEED_TRY(meed_command_line_parse(&argp, argc, argv, &up.options, &up.options.status));
    if (!up.options.file) {
        return MEED_FAIL(MEED_ARG, "no federation file given; try examples/tiny/federation.yaml");
    }
    MEED_TRY(meed_federation_file_load(up.options.file, &up.file));
    if (up.file.client_count == 0) {
        return MEED_FAIL(MEED_CONFIG, "%s has simulated clients only; `meed simulate` runs it",
                         up.options.file);
    }
    MEED_TRY(check_data(&up));
    if (up.options.seed >= 0) {
        up.file.seed = (uint64_t)up.options.seed;
    }
    if (up.options.state) {
        snprintf(up.state, sizeof up.state, "%s", up.options.state);
    } else {
        snprintf(up.state, sizeof up.state, "out/%s", up.file.name);
    }
    if (up.options.json) {
        snprintf(up.report, sizeof up.report, "%s", up.options.json);
    } else {
        snprintf(up.report, sizeof up.report, "%s/report.json", up.state);
    }
    meed_live_init(&up.table, up.file.name, up.file.rounds, up.options.quiet);
    enum meed_status st = run_all(&up);
    if (st == MEED_OK) {
        print_end(&up);
    }
    meed_live_clear(&up.table);
    return st;
}
