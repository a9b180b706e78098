/* A running federation on the terminal: one table, redrawn in place.
 *
 *   tiny  round 2 of 3  valuing 43 %                                      utility -2.103 → -1.871
 *   client      state      loss    up      down    φ ± se              share
 *   clinic      pushed     1.42    41.2 k  164 k   +0.0421 ± 0.0031     4,120
 *   mixer       excluded   1.55    41.3 k  164 k   +0.0102 ± 0.0020         0  grounding −0.02 …
 *
 * The model of the table is this struct, filled by whoever hears the aggregator's events; drawing
 * knows nothing of where the numbers come from. On a terminal the block is redrawn at most ten
 * times a second; piped, a line is written when something a reader would miss has changed.
 */
#ifndef MEED_CLI_LIVE_TABLE_H
#define MEED_CLI_LIVE_TABLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { MEED_LIVE_MAX_CLIENTS = 64, MEED_LIVE_TEXT = 160 };

struct meed_live_client {
    char id[64];
    char state[24]; /* "training", "pushed", "paid" … */
    double loss;    /* NaN: not known */
    int64_t bytes_up;
    int64_t bytes_down;
    bool valued;
    double phi;
    double se;
    int64_t share; /* credits of the round */
    int64_t total; /* credits so far */
    char reason[MEED_LIVE_TEXT];
};

struct meed_live_table {
    pthread_mutex_t mutex; /* held by every function below */
    bool terminal;
    bool quiet;
    char title[64];
    int32_t round, rounds;
    char phase[48];
    double utility_before, utility_after; /* NaN: not known */
    int64_t done, total;                  /* of the phase; total 0: no percentage */
    int32_t client_count;
    struct meed_live_client clients[MEED_LIVE_MAX_CLIENTS];
    int drawn_lines;
    int64_t drawn_ns;
    int64_t start_ns;
};

void meed_live_init(struct meed_live_table *table, const char *title, int32_t rounds, bool quiet);
void meed_live_clear(struct meed_live_table *table);
/* The row of id, added if new; NULL when the table is full. Caller holds no lock. */
struct meed_live_client *meed_live_client(struct meed_live_table *table, const char *id);
/* Redraws on a terminal (throttled unless `now`). */
void meed_live_draw(struct meed_live_table *table, bool now);
/* A plain line: above the table on a terminal, as it is when piped. */
void meed_live_say(struct meed_live_table *table, const char *line);
/* The table of one settled round, to any stream (no redraw). */
void meed_live_print_round(struct meed_live_table *table, FILE *to);
/* Who earned what: credits so far as a bar chart, most first, with the last reason of those that
 * earned nothing. */
void meed_live_print_totals(struct meed_live_table *table, FILE *to);

/* 12345 → "12.3 k"; 1234567 → "1,234,567". text holds 32 bytes. */
void meed_live_bytes(int64_t bytes, char text[32]);
void meed_live_credits(int64_t credits, char text[32]);

#endif
