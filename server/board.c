/* See board.h. */
#include "server/board.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct meed_board {
    pthread_mutex_t lock;
    meed_aggregator_observer_fn observer;
    void *observer_user;
    int32_t round;
    int32_t round_count;
    int32_t count;
    struct meed_aggregator_row *rows; /* [count] */
    bool *in;                         /* [count] update of this round is in */
    bool *seen;                       /* [count] has called in this process */
};

enum meed_status meed_board_create(const struct meed_registry *registry, int32_t round_count,
                                   meed_aggregator_observer_fn observer, void *observer_user,
                                   struct meed_board **board)
{
    struct meed_board *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    pthread_mutex_init(&made->lock, NULL);
    made->observer = observer;
    made->observer_user = observer_user;
    made->round_count = round_count;
    made->round = 1;
    made->count = meed_registry_count(registry);
    made->rows = meed_heap_alloc((size_t)made->count, sizeof *made->rows);
    made->in = meed_heap_alloc((size_t)made->count, sizeof *made->in);
    made->seen = meed_heap_alloc((size_t)made->count, sizeof *made->seen);
    if (!made->rows || !made->in || !made->seen) {
        meed_board_destroy(made);
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < made->count; i++) {
        snprintf(made->rows[i].id, sizeof made->rows[i].id, "%s", meed_registry_id(registry, i));
    }
    *board = made;
    return MEED_OK;
}

void meed_board_destroy(struct meed_board *board)
{
    if (board) {
        pthread_mutex_destroy(&board->lock);
        meed_heap_free(board->rows);
        meed_heap_free(board->in);
        meed_heap_free(board->seen);
        meed_heap_free(board);
    }
}

void meed_board_open(struct meed_board *board, int32_t round)
{
    pthread_mutex_lock(&board->lock);
    board->round = round;
    for (int32_t i = 0; i < board->count; i++) {
        struct meed_aggregator_row *row = &board->rows[i];
        board->in[i] = false;
        row->seat = board->seen[i] ? MEED_SEAT_JOINED : MEED_SEAT_AWAY;
        row->train_loss = row->score = row->verdict = 0.0;
        row->bytes_up = row->bytes_down = 0;
    }
    pthread_mutex_unlock(&board->lock);
}

bool meed_board_joined(struct meed_board *board, int32_t client)
{
    pthread_mutex_lock(&board->lock);
    bool first = !board->seen[client];
    board->seen[client] = true;
    if (board->rows[client].seat == MEED_SEAT_AWAY) {
        board->rows[client].seat = MEED_SEAT_JOINED;
    }
    pthread_mutex_unlock(&board->lock);
    return first;
}

void meed_board_update(struct meed_board *board, int32_t client, double train_loss)
{
    pthread_mutex_lock(&board->lock);
    board->in[client] = true;
    board->rows[client].seat = MEED_SEAT_IN;
    board->rows[client].train_loss = train_loss;
    pthread_mutex_unlock(&board->lock);
}

void meed_board_traffic(struct meed_board *board, int32_t client, int64_t up, int64_t down)
{
    pthread_mutex_lock(&board->lock);
    board->rows[client].bytes_up += up;
    board->rows[client].bytes_down += down;
    pthread_mutex_unlock(&board->lock);
}

void meed_board_score(struct meed_board *board, int32_t client, double score)
{
    pthread_mutex_lock(&board->lock);
    board->rows[client].score = score;
    pthread_mutex_unlock(&board->lock);
}

void meed_board_judged(struct meed_board *board, int32_t client, double score)
{
    pthread_mutex_lock(&board->lock);
    board->rows[client].verdict = score;
    pthread_mutex_unlock(&board->lock);
}

void meed_board_verdict(struct meed_board *board, int32_t client,
                        const struct meed_board_verdict *verdict)
{
    pthread_mutex_lock(&board->lock);
    struct meed_aggregator_row *row = &board->rows[client];
    row->seat = verdict->seat;
    row->phi = verdict->phi;
    row->se = verdict->se;
    row->share = verdict->share;
    snprintf(row->reason, sizeof row->reason, "%s", verdict->reason);
    snprintf(row->remark, sizeof row->remark, "%s", verdict->remark);
    pthread_mutex_unlock(&board->lock);
}

void meed_board_total(struct meed_board *board, int32_t client, int64_t total_share)
{
    pthread_mutex_lock(&board->lock);
    board->rows[client].total_share = total_share;
    pthread_mutex_unlock(&board->lock);
}

static int32_t count_in(const struct meed_board *board)
{
    int32_t in = 0;
    for (int32_t i = 0; i < board->count; i++) {
        in += board->in[i];
    }
    return in;
}

void meed_board_emit(struct meed_board *board, const struct meed_aggregator_event *event)
{
    if (!board->observer) {
        return;
    }
    pthread_mutex_lock(&board->lock);
    struct meed_aggregator_event full = *event;
    full.round = event->round ? event->round : board->round;
    full.round_count = board->round_count;
    full.updates_in = count_in(board);
    full.row_count = board->count;
    full.rows = board->rows;
    board->observer(board->observer_user, &full);
    pthread_mutex_unlock(&board->lock);
}

int32_t meed_board_count(const struct meed_board *board)
{
    return board->count;
}

void meed_board_row(struct meed_board *board, int32_t client, struct meed_aggregator_row *row)
{
    pthread_mutex_lock(&board->lock);
    *row = board->rows[client];
    pthread_mutex_unlock(&board->lock);
}

int32_t meed_board_updates_in(struct meed_board *board)
{
    pthread_mutex_lock(&board->lock);
    int32_t in = count_in(board);
    pthread_mutex_unlock(&board->lock);
    return in;
}

void meed_board_missing(struct meed_board *board, char *text, size_t text_bytes)
{
    enum { NAMED = 5 };
    size_t used = 0;
    int32_t missing = 0;
    text[0] = '\0';
    pthread_mutex_lock(&board->lock);
    for (int32_t i = 0; i < board->count; i++) {
        if (board->in[i] || missing++ >= NAMED) {
            continue;
        }
        int wrote =
            snprintf(text + used, text_bytes - used, "%s%s", used ? ", " : "", board->rows[i].id);
        used = MEED_MIN(used + (size_t)MEED_MAX(wrote, 0), text_bytes - 1);
    }
    pthread_mutex_unlock(&board->lock);
    if (missing > NAMED) {
        snprintf(text + used, text_bytes - used, " and %d more", missing - NAMED);
    }
}
