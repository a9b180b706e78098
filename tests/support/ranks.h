/* Ranks as processes: one body, forked `world` times. Like golden.h, it fails the running test. */
#ifndef MEED_SUPPORT_RANKS_H
#define MEED_SUPPORT_RANKS_H

#include <stdint.h>

enum { RANKS_MOST = 8 };

/* 0, or a small number that says what went wrong. */
typedef int (*ranks_body)(int32_t rank, int32_t world, const char *key);
/* Runs all ranks to their end and demands 0 of each; one that takes longer than `seconds` dies. */
void ranks_run(ranks_body body, int32_t world, const char *key, unsigned seconds);

#endif
