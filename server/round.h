/* The round as a pure state machine: an event in, a new state and actions out.
 *
 *               update (all in), or tick (deadline, quorum in)
 *     OPEN ------------------------------------------------------> SCREEN
 *      ^  \                                                          | screened
 *      |   \ tick (deadline, too few)                                v
 *      |    `--------------------------> ABANDON                   VALUE
 *      |                                    |                        | valued
 *      |  published, rounds left            |                        v
 *      +------------------------------------+<---------- PUBLISH <- SETTLE
 *                                           |    settled
 *                                           v  published, last round
 *                                        FINISHED
 *
 * It reads no clock (events carry the time), touches no disk and allocates nothing, so every order
 * of lateness, duplication, loss and restart can be played through in a test in microseconds. The
 * owner (service.c, settle.c) carries the actions out *before* it adopts the new state: it asks
 * meed_round_step for what would be, writes that to disk, and only then replaces its state. A
 * crash in between leaves the old state, and the event comes again.
 *
 * Time. The deadline starts with the first client that is seen in a round (PRESENT), so that a
 * server waiting for its first client does not abandon round after round; a restart grants the
 * round its full time again, because the server's absence is not the clients' fault.
 *
 * Decisions a reader may question: an update that arrives after the deadline but before the tick
 * that closes the round is taken (the tick is the decision, not the clock); a second, different
 * update of one client is refused, the first stands; updates never reopen a round.
 */
#ifndef MEED_SERVER_ROUND_H
#define MEED_SERVER_ROUND_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "proto/limits.h"

MEED_BEGIN_C

enum meed_round_phase {
    MEED_ROUND_OPEN,    /* collecting updates */
    MEED_ROUND_SCREEN,  /* the cohort is fixed; the defence looks at it */
    MEED_ROUND_VALUE,   /* coalitions are scored */
    MEED_ROUND_SETTLE,  /* shares are known: aggregate, write the ledger */
    MEED_ROUND_PUBLISH, /* the ledger has it: make the next adapter current */
    MEED_ROUND_ABANDON, /* too few updates: write that into the ledger */
    MEED_ROUND_FINISHED,
    MEED_ROUND_PHASE_COUNT
};

enum meed_round_event_kind {
    MEED_ROUND_EVENT_PRESENT,  /* a client of the roster called */
    MEED_ROUND_EVENT_UPDATE,   /* a whole update was received and checked */
    MEED_ROUND_EVENT_TICK,     /* time passed */
    MEED_ROUND_EVENT_SCREENED, /* results of the stages */
    MEED_ROUND_EVENT_VALUED,
    MEED_ROUND_EVENT_SETTLED,
    MEED_ROUND_EVENT_PUBLISHED, /* also after ABANDON */
    MEED_ROUND_EVENT_COUNT
};

struct meed_round_event {
    enum meed_round_event_kind kind;
    int64_t now_ms; /* PRESENT, TICK; any clock that does not go back */
    /* UPDATE: */
    int32_t client; /* index in the roster */
    int32_t round;  /* that the update names */
    bool shape_fits;
    bool same_bytes; /* equal to what this client has already delivered in this round */
};

/* What became of an event. */
enum meed_round_verdict {
    MEED_ROUND_TAKEN,        /* the state moved, or time simply passed */
    MEED_ROUND_DUPLICATE,    /* the same update again: a success for the client, nothing to do */
    MEED_ROUND_CONFLICT,     /* another update of a client that has one in */
    MEED_ROUND_LATE,         /* this round has closed */
    MEED_ROUND_STALE,        /* an earlier round's */
    MEED_ROUND_EARLY,        /* a round that has not begun */
    MEED_ROUND_STRANGER,     /* no such client */
    MEED_ROUND_MISSHAPEN,    /* does not fit the plan */
    MEED_ROUND_OUT_OF_ORDER, /* a stage's result that nobody waits for */
    MEED_ROUND_VERDICT_COUNT
};

/* What the owner has to do, in this order. */
enum {
    MEED_ROUND_DO_STORE = 1 << 0,  /* make the update durable */
    MEED_ROUND_DO_SCREEN = 1 << 1, /* and so on: the stage to run now */
    MEED_ROUND_DO_VALUE = 1 << 2,
    MEED_ROUND_DO_SETTLE = 1 << 3,
    MEED_ROUND_DO_PUBLISH = 1 << 4,
    MEED_ROUND_DO_ABANDON = 1 << 5,
    MEED_ROUND_DO_OPEN = 1 << 6, /* announce the round that `round` now names */
    MEED_ROUND_DO_FINISH = 1 << 7,
};

struct meed_round_config {
    int32_t rounds;      /* ≥ 1 */
    int32_t clients;     /* 1 to MEED_LIMIT_CLIENTS */
    int32_t quorum;      /* 1 to clients */
    int64_t deadline_ms; /* ≥ 1 */
};

struct meed_round {
    struct meed_round_config config;
    enum meed_round_phase phase;
    int32_t round;          /* 1 to config.rounds; stays at the last when finished */
    int64_t deadline_at_ms; /* -1: not begun */
    int32_t arrived_count;
    uint8_t arrived[MEED_LIMIT_CLIENTS / 8]; /* bit i: client i's update is in */
};

struct meed_round_outcome {
    enum meed_round_verdict verdict;
    uint32_t actions; /* MEED_ROUND_DO_… */
    struct meed_round next;
};

/* Round 1, open. CONFIG names the number that is out of range. */
MEED_MUST_CHECK enum meed_status meed_round_init(const struct meed_round_config *config,
                                                 struct meed_round *round);
/* After a restart: the stored round and phase; then meed_round_mark each stored arrival. STATE if
 * they cannot be. */
MEED_MUST_CHECK enum meed_status meed_round_resume(const struct meed_round_config *config,
                                                   int32_t round_idx, enum meed_round_phase phase,
                                                   struct meed_round *round);
MEED_MUST_CHECK enum meed_status meed_round_mark(struct meed_round *round, int32_t client);

/* The whole machine. Refusing verdicts leave outcome->next equal to *round and ask for nothing. */
void meed_round_step(const struct meed_round *round, const struct meed_round_event *event,
                     struct meed_round_outcome *outcome);
/* What an update with this header would be told now; lets a server refuse before the bytes come. */
enum meed_round_verdict meed_round_judge(const struct meed_round *round,
                                         const struct meed_round_event *event);
bool meed_round_has(const struct meed_round *round, int32_t client);
/* Milliseconds to the deadline, 0 when past, -1 if it has not begun. */
int64_t meed_round_remaining_ms(const struct meed_round *round, int64_t now_ms);

/* OK for TAKEN and DUPLICATE, else a failure with a sentence that says what to do. */
MEED_MUST_CHECK enum meed_status meed_round_verdict_status(const struct meed_round *round,
                                                           enum meed_round_verdict verdict,
                                                           int32_t update_round);
const char *meed_round_verdict_name(enum meed_round_verdict verdict); /* "late": metrics, tests */
const char *meed_round_phase_name(enum meed_round_phase phase);       /* "open" */

MEED_END_C
#endif
