/* Synthetic cohorts for detectors: honest low-rank updates with a shared direction, and attackers
 * built from the same draws. Everything is a function of the seed; failures abort.
 *
 * An honest client moves A and B by a shared direction plus noise of its own (the shared part holds
 * 40 % of the energy of a step, so two steps have cosines about 0.4), each module a little more or
 * less than the next and each client as a whole likewise (log-normal, 15 % and 30 %). */
#ifndef MEED_SUPPORT_ATTACKED_COHORT_H
#define MEED_SUPPORT_ATTACKED_COHORT_H

#include "server/detector.h"

enum attacked_kind {
    ATTACKED_NONE,
    ATTACKED_FLIP,      /* the step of B reversed, A left alone */
    ATTACKED_SCALE,     /* the step of B ten times as long, A left alone */
    ATTACKED_RANDOM,    /* noise of an honest step's size in both factors */
    ATTACKED_REPLAY,    /* the last global step, with 10 % noise */
    ATTACKED_ZERO,      /* the global adapter */
    ATTACKED_DUPLICATE, /* all attackers send one update, with 10 % noise each */
    ATTACKED_GAP,       /* A as an honest client's, B mirrored in the direction that weighs most */
    ATTACKED_SWELL,     /* an honest step, one module of it five times as long */
    ATTACKED_COUNT
};

struct attacked_cohort {
    struct meed_adapter *base, *global; /* the global adapter before the last step, and after it */
    struct meed_adapter **clients;      /* [count] */
    bool *attacker;                     /* [count] every fifth */
    int32_t count;
    struct meed_step_past past; /* base, without updates */
};

struct attacked_cohort attacked_cohort_make(enum attacked_kind kind, int32_t count, uint64_t seed);
void attacked_cohort_free(struct attacked_cohort *cohort);
const char *attacked_cohort_name(enum attacked_kind kind);

#endif
