/* See live_table.h. A frame is built in memory and written with one call, so that redraws do not
 * flicker; lines are cut at the terminal's width by erasing to its end, never wrapped. */
#include "cli/live_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/clock.h"
#include "cli/progress.h"

enum { REDRAW_NS = 100000000, MAX_FRAME_BYTES = 64 << 10, ID_COLUMNS = 12, BAR_CELLS = 24 };

void meed_live_init(struct meed_live_table *table, const char *title, int32_t rounds, bool quiet)
{
    *table = (struct meed_live_table){
        .terminal = isatty(STDERR_FILENO) == 1,
        .quiet = quiet,
        .rounds = rounds,
        .utility_before = NAN,
        .utility_after = NAN,
        .start_ns = meed_clock_monotonic_ns(),
    };
    pthread_mutex_init(&table->mutex, NULL);
    snprintf(table->title, sizeof table->title, "%s", title);
}

void meed_live_clear(struct meed_live_table *table)
{
    pthread_mutex_destroy(&table->mutex);
}

struct meed_live_client *meed_live_client(struct meed_live_table *table, const char *id)
{
    for (int32_t i = 0; i < table->client_count; i++) {
        if (strcmp(table->clients[i].id, id) == 0) {
            return &table->clients[i];
        }
    }
    if (table->client_count == MEED_LIVE_MAX_CLIENTS) {
        return NULL;
    }
    struct meed_live_client *client = &table->clients[table->client_count++];
    *client = (struct meed_live_client){.loss = NAN};
    snprintf(client->id, sizeof client->id, "%s", id);
    snprintf(client->state, sizeof client->state, "waiting");
    return client;
}

void meed_live_bytes(int64_t bytes, char text[32])
{
    char quantity[16];
    meed_progress_quantity((double)bytes, quantity);
    snprintf(text, 32, "%s", bytes ? quantity : "-");
}

void meed_live_credits(int64_t credits, char text[32])
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)credits);
    int used = 0;
    for (int i = 0; i < length && used < 30; i++) {
        text[used++] = digits[i];
        int left = length - 1 - i;
        if (left > 0 && left % 3 == 0 && digits[i] != '-') {
            text[used++] = ',';
        }
    }
    text[used] = '\0';
}

static enum meed_status client_line(const struct meed_live_client *client, const char *ending,
                                    struct meed_buf *frame)
{
    char loss[16] = "-";
    char up[32];
    char down[32];
    char value[40] = "-";
    char share[32] = "-";
    char total[32];
    if (!isnan(client->loss)) {
        snprintf(loss, sizeof loss, "%.3f", client->loss);
    }
    meed_live_bytes(client->bytes_up, up);
    meed_live_bytes(client->bytes_down, down);
    if (client->valued) {
        snprintf(value, sizeof value, "%+.5f ± %.5f", client->phi, client->se);
        meed_live_credits(client->share, share);
    }
    meed_live_credits(client->total, total);
    /* "±" is two bytes: one column more of padding */
    int value_width = client->valued ? 21 : 20;
    return meed_buf_printf(frame, "  %-*s %-9s %7s %8s %8s  %*s %9s %10s%s%s%s", ID_COLUMNS,
                           client->id, client->state, loss, up, down, value_width, value, share,
                           total, client->reason[0] ? "  " : "", client->reason, ending);
}

static enum meed_status frame_build(const struct meed_live_table *table, const char *ending,
                                    struct meed_buf *frame)
{
    MEED_TRY(meed_buf_printf(frame, "%s  round %d of %d  %s", table->title, table->round,
                             table->rounds, table->phase));
    if (table->total > 0) {
        MEED_TRY(meed_buf_printf(frame, " %d %%", (int)(table->done * 100 / table->total)));
    }
    if (!isnan(table->utility_before)) {
        MEED_TRY(meed_buf_printf(frame, "  utility %.4f", table->utility_before));
        if (!isnan(table->utility_after)) {
            MEED_TRY(meed_buf_printf(frame, " → %.4f", table->utility_after));
        }
    }
    MEED_TRY(
        meed_buf_printf(frame, "  %.0f s%s", meed_clock_seconds_since(table->start_ns), ending));
    MEED_TRY(meed_buf_printf(frame, "  %-*s %-9s %7s %8s %8s  %20s %9s %10s%s", ID_COLUMNS,
                             "client", "state", "loss", "up", "down", "value ± se", "share",
                             "total", ending));
    for (int32_t i = 0; i < table->client_count; i++) {
        MEED_TRY(client_line(&table->clients[i], ending, frame));
    }
    return MEED_OK;
}

static void frame_erase(struct meed_live_table *table)
{
    if (table->drawn_lines > 0) {
        fprintf(stderr, "\033[%dA\r\033[J", table->drawn_lines);
        table->drawn_lines = 0;
    }
}

static void frame_draw(struct meed_live_table *table)
{
    struct meed_buf frame;
    meed_buf_init(&frame, MAX_FRAME_BYTES);
    if (frame_build(table, "\033[K\n", &frame) == MEED_OK) {
        frame_erase(table);
        fputs("\033[?7l", stderr); /* no wrapping: long reasons are cut */
        fwrite(frame.data, 1, frame.size, stderr);
        fputs("\033[?7h", stderr);
        fflush(stderr);
        table->drawn_lines = table->client_count + 2;
        table->drawn_ns = meed_clock_monotonic_ns();
    }
    meed_buf_clear(&frame);
}

void meed_live_draw(struct meed_live_table *table, bool now)
{
    pthread_mutex_lock(&table->mutex);
    if (table->terminal && !table->quiet &&
        (now || meed_clock_monotonic_ns() - table->drawn_ns > REDRAW_NS)) {
        frame_draw(table);
    }
    pthread_mutex_unlock(&table->mutex);
}

void meed_live_say(struct meed_live_table *table, const char *line)
{
    pthread_mutex_lock(&table->mutex);
    if (!table->quiet) {
        frame_erase(table);
        fprintf(stderr, "%s\n", line);
        if (table->terminal && table->client_count > 0) {
            frame_draw(table);
        }
    }
    pthread_mutex_unlock(&table->mutex);
}

void meed_live_print_round(struct meed_live_table *table, FILE *to)
{
    struct meed_buf frame;
    meed_buf_init(&frame, MAX_FRAME_BYTES);
    pthread_mutex_lock(&table->mutex);
    frame_erase(table);
    if (frame_build(table, "\n", &frame) == MEED_OK) {
        fwrite(frame.data, 1, frame.size, to);
        fflush(to);
    }
    pthread_mutex_unlock(&table->mutex);
    meed_buf_clear(&frame);
}

static int by_total(const void *left, const void *right)
{
    const struct meed_live_client *a = *(const struct meed_live_client *const *)left;
    const struct meed_live_client *b = *(const struct meed_live_client *const *)right;
    return a->total != b->total ? (a->total < b->total) - (a->total > b->total)
                                : strcmp(a->id, b->id);
}

void meed_live_print_totals(struct meed_live_table *table, FILE *to)
{
    const struct meed_live_client *order[MEED_LIVE_MAX_CLIENTS];
    int64_t sum = 0;
    pthread_mutex_lock(&table->mutex);
    frame_erase(table);
    for (int32_t i = 0; i < table->client_count; i++) {
        order[i] = &table->clients[i];
        sum += table->clients[i].total;
    }
    qsort(order, (size_t)table->client_count, sizeof order[0], by_total);
    fprintf(to, "  %-*s %10s %8s\n", ID_COLUMNS, "client", "credits", "share");
    for (int32_t i = 0; i < table->client_count; i++) {
        char total[32];
        meed_live_credits(order[i]->total, total);
        double share = sum > 0 ? (double)order[i]->total / (double)sum : 0.0;
        fprintf(to, "  %-*s %10s %6.1f %%", ID_COLUMNS, order[i]->id, total, 100.0 * share);
        int64_t most = order[0]->total;
        int64_t cells = most > 0 ? (order[i]->total * BAR_CELLS + most / 2) / most : 0;
        fputs(cells > 0 || order[i]->reason[0] ? "  " : "", to);
        for (int64_t cell = 0; cell < cells; cell++) {
            fputs("█", to);
        }
        fprintf(to, "%s\n", cells > 0 ? "" : order[i]->reason);
    }
    fflush(to);
    pthread_mutex_unlock(&table->mutex);
}
