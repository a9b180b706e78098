/* Attacks on a federation, for experiments alone: what defences and prices are measured against.
 *
 * Only `meed simulate` and tests reach this: a client knows nothing of it, because client/ may not
 * include evaluation/ (tests/tidy) and `meed join` has no option that could name one. An attack is
 * a row of one table. It changes what a client trains on (DATA), what it sends (UPDATE) or who it
 * says it is (IDENTITY), is a pure function of its seed, and has one number, its strength.
 *
 *   swap       replies exchanged between dialogues: fluent, in style and wrong
 *   garbage    replies of random words
 *   safety     refusals turned into compliance
 *   backdoor   a trigger in the question, a fixed reply; other dialogues stay clean
 *   judge      every reply praises itself and asks for the highest rating
 *   flip       what was learned, with the other sign
 *   scale      what was learned, times γ (model replacement, Bagdasaryan et al. 2020)
 *   gaussian   noise on top of an honest update
 *   gap        A and B each look like an honest client's, their product is harmful
 *   zero       free-rider: returns its start
 *   random     free-rider: noise of an update's size
 *   replay     free-rider: the last global step once more
 *   duplicate  a group sends its first member's update under every name
 *   sybil      one client's data, split over the names of a group
 *   collude    a group sends one swapped update, each with noise of its own
 *   adaptive   half swapped, then blown up to just inside the clipping screen
 *
 * On updates. A client holds factors of rank r and not ΔW, and W_g + m ΔW has rank 2r. So flip,
 * scale and replay keep A and take the B that comes nearest in Frobenius norm: exact in the first
 * round, where B_g = 0, and wherever A_g lies in the rows of A. (Moving both factors by m instead
 * adds m² dB dA: with the learning rates of adapters that term wins, and a "flipped" update helps.)
 * `gap` is the gradient assembly of the literature without optimisation: A stays the honest one to
 * the bit, B is mirrored in the few of its r directions that weigh most, B' = B (I − 2 V Vᵀ).
 * Honest clients agree in A and hardly in B (cosines 0.88 and 0.1 on the embedded model), so
 * neither factor stands out, while B' A has lost and reversed the largest part of B A: only who
 * looks at the product sees it.
 *
 * What it leaves out: attacks on one named rival, on the judge's prompt, and on transport; late,
 * malformed and NaN updates, which are tested where bytes are decoded.
 */
#ifndef MEED_EVALUATION_ATTACK_H
#define MEED_EVALUATION_ATTACK_H

#include "engine/adapter.h"
#include "engine/chat.h"

MEED_BEGIN_C

enum meed_attack {
    MEED_ATTACK_NONE,
    MEED_ATTACK_SWAP,
    MEED_ATTACK_GARBAGE,
    MEED_ATTACK_SAFETY,
    MEED_ATTACK_BACKDOOR,
    MEED_ATTACK_JUDGE,
    MEED_ATTACK_FLIP,
    MEED_ATTACK_SCALE,
    MEED_ATTACK_GAUSSIAN,
    MEED_ATTACK_GAP,
    MEED_ATTACK_ZERO,
    MEED_ATTACK_RANDOM,
    MEED_ATTACK_REPLAY,
    MEED_ATTACK_DUPLICATE,
    MEED_ATTACK_SYBIL,
    MEED_ATTACK_COLLUDE,
    MEED_ATTACK_ADAPTIVE,
    MEED_ATTACK_COUNT
};

enum {
    MEED_ATTACK_ON_DATA = 1 << 0,     /* meed_attack_data */
    MEED_ATTACK_ON_UPDATE = 1 << 1,   /* meed_attack_update */
    MEED_ATTACK_ON_IDENTITY = 1 << 2, /* members of a group share their first one's data */
    MEED_ATTACK_UNTRAINED = 1 << 3,   /* needs no training: meed_attack_update makes it all */
    MEED_ATTACK_LED = 1 << 4,         /* so do the others of a group; they need its first one's */
};

struct meed_attack_info {
    const char *name;
    unsigned stages;
    double strength; /* default */
    double min, max; /* of strength */
    const char *strength_means;
};
extern const struct meed_attack_info meed_attack_infos[MEED_ATTACK_COUNT];

/* ARG lists the names. */
MEED_MUST_CHECK enum meed_status meed_attack_parse(const char *name, enum meed_attack *attack);

/* What a backdoored client teaches; probes ask with the first and look for the second. */
extern const char meed_attack_trigger[];
extern const char meed_attack_target[];
extern const char meed_attack_praise[]; /* the reply of `judge` */

struct meed_attack_member {
    enum meed_attack attack;
    double strength;
    uint64_t seed;        /* of this client */
    int32_t member_idx;   /* in its group, 0 the first */
    int32_t member_count; /* ≥ 1 */
};

/* The dialogues that the member trains on, made from its own [count]; allocated from arena, texts
 * may be shared with the input. An attack that is not on data returns them as they are. FORMAT if
 * nothing is left (a sybil split finer than the data). */
MEED_MUST_CHECK enum meed_status meed_attack_data(const struct meed_attack_member *member,
                                                  const struct meed_dialogue *own, int64_t count,
                                                  struct meed_arena *arena,
                                                  struct meed_dialogue **dialogues,
                                                  int64_t *dialogue_count);

/* What an attacker knows in a round. */
struct meed_attack_view {
    int32_t round;
    const struct meed_adapter *global;   /* pulled */
    const struct meed_adapter *previous; /* pulled in the round before; NULL in the first */
    const struct meed_adapter *leader; /* what the group's first member sent; NULL: none or self */
    double clip_multiple;              /* of the terms; 0: nothing is clipped */
};

/* Turns a trained adapter (or a copy of the global one, where nothing was trained) into what is
 * sent. An attack that is not on updates leaves it alone. */
MEED_MUST_CHECK enum meed_status meed_attack_update(const struct meed_attack_member *member,
                                                    const struct meed_attack_view *view,
                                                    struct meed_adapter *trained);

MEED_END_C
#endif
