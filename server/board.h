/* The board: one row a client, for eyes. What the live table, /metrics and the log line are made
 * of.
 *
 * It holds no truth: the store and the ledger do. Handlers and the settling thread write facts as
 * they happen, and `emit` hands the observer an event with all rows while the lock is held, so rows
 * never change under it and observers are called one at a time. The lock is a leaf: nothing else is
 * locked inside it.
 */
#ifndef MEED_SERVER_BOARD_H
#define MEED_SERVER_BOARD_H

#include "server/aggregator.h"
#include "server/registry.h"

MEED_BEGIN_C

struct meed_board;

MEED_MUST_CHECK enum meed_status meed_board_create(const struct meed_registry *registry,
                                                   int32_t round_count,
                                                   meed_aggregator_observer_fn observer,
                                                   void *observer_user, struct meed_board **board);
void meed_board_destroy(struct meed_board *board); /* accepts NULL */

/* A round begins: updates, losses and bytes start over; verdicts stay until the next ones. */
void meed_board_open(struct meed_board *board, int32_t round);
/* True the first time. */
bool meed_board_joined(struct meed_board *board, int32_t client);
void meed_board_update(struct meed_board *board, int32_t client, double train_loss);
void meed_board_traffic(struct meed_board *board, int32_t client, int64_t up, int64_t down);
void meed_board_score(struct meed_board *board, int32_t client, double score);
void meed_board_judged(struct meed_board *board, int32_t client, double score);
struct meed_board_verdict {
    enum meed_aggregator_seat seat;
    double phi, se;
    int64_t share;
    const char *reason, *remark; /* copied */
};
void meed_board_verdict(struct meed_board *board, int32_t client,
                        const struct meed_board_verdict *verdict);
void meed_board_total(struct meed_board *board, int32_t client, int64_t total_share);

/* Fills rows, counts and the round if they are not set, and calls the observer. */
void meed_board_emit(struct meed_board *board, const struct meed_aggregator_event *event);
int32_t meed_board_count(const struct meed_board *board);
/* A copy of one row. */
void meed_board_row(struct meed_board *board, int32_t client, struct meed_aggregator_row *row);
/* "anna, ben and 3 more", those without an update of this round. */
void meed_board_missing(struct meed_board *board, char *text, size_t text_bytes);
int32_t meed_board_updates_in(struct meed_board *board);

MEED_END_C
#endif
