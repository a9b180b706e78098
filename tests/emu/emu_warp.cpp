/* Warp collectives: shuffles, votes, __syncwarp, and the tensor-core pair ldmatrix and mma.
 *
 * A collective is a meeting of the lanes of one mask at one source line. Each lane brings the
 * address of a record on its own stack; the last one to come fills in all of them, and the others
 * go on. Divergence, masks that overlap, lanes outside their mask and lanes that have exited are
 * undefined on the device and failures here. Nothing is ordered in memory, except by __syncwarp.
 *
 * Towards TSan, __syncwarp has two objects per warp and mask, used in turns: with one, a lane that
 * arrives for the next round would release what a lane still leaving the last round acquires.
 */
#include "tests/emu/emu_engine.h"

static constexpr int MEETINGS_MAX = 8;
static constexpr int MASKS_MAX = 8;

struct meeting {
    unsigned mask; /* 0: free */
    unsigned came;
    meed_emu_place place;
    void *records[EMU_WARP];
};
struct warp_masks {
    unsigned mask;
    int round;
};
struct warp {
    unsigned lanes;  /* that exist */
    unsigned exited; /* of them */
    struct meeting meetings[MEETINGS_MAX];
    struct warp_masks masks[MASKS_MAX];
};
static struct warp warps[EMU_WARPS_MAX];

/* Sync points 0 and 1 are the block barrier's. */
static constexpr int FIRST_POINT = 2;
static_assert(FIRST_POINT + EMU_WARPS_MAX * MASKS_MAX * 2 <= EMU_SYNC_POINTS, "points for all");

void emu_warps_begin(int threads)
{
    for (int i = 0; i * EMU_WARP < threads; i++) {
        struct warp *warp = &warps[i];
        int lanes = MEED_MIN(threads - i * EMU_WARP, (int)EMU_WARP);
        warp->lanes = lanes == EMU_WARP ? 0xFFFFFFFFu : (1u << lanes) - 1;
        warp->exited = 0;
        for (int j = 0; j < MEETINGS_MAX; j++) {
            warp->meetings[j].mask = 0;
        }
        for (int j = 0; j < MASKS_MAX; j++) {
            warp->masks[j] = {0, 0};
        }
    }
}

void emu_warp_exit(int thread)
{
    warps[thread / EMU_WARP].exited |= 1u << thread % EMU_WARP;
}

static void mask_check(const struct warp *warp, int lane, unsigned mask, meed_emu_place place)
{
    if (!(mask >> lane & 1)) {
        emu_fail(place, "the lane is not in its own mask %08x", mask);
    }
    if (mask & warp->exited) {
        emu_fail(place, "mask %08x names lane %d, which has exited", mask,
                 __builtin_ctz(mask & warp->exited));
    }
}

/* The meeting of this mask under way, or a new one. */
static struct meeting *meeting_find(struct warp *warp, unsigned mask, meed_emu_place place)
{
    struct meeting *found = NULL;
    for (int i = 0; i < MEETINGS_MAX; i++) {
        struct meeting *meeting = &warp->meetings[i];
        if (meeting->mask == mask) {
            if (meeting->place.line != place.line || meeting->place.file != place.file) {
                emu_fail(place, "lanes of mask %08x diverge: others wait at %s:%d", mask,
                         meeting->place.file, meeting->place.line);
            }
            return meeting;
        }
        if (meeting->mask & mask) {
            emu_fail(place, "mask %08x overlaps mask %08x, whose lanes wait at %s:%d", mask,
                     meeting->mask, meeting->place.file, meeting->place.line);
        }
        found = meeting->mask == 0 ? meeting : found;
    }
    if (!found) {
        emu_fail(place, "more than %d collectives of one warp under way", MEETINGS_MAX);
    }
    found->mask = mask;
    found->came = 0;
    found->place = place;
    return found;
}

void meed_emu_collective(unsigned mask, void *record, meed_emu_finish_fn *finish,
                         meed_emu_place place)
{
    int thread = emu_thread_now();
    int first = thread / EMU_WARP * EMU_WARP;
    int lane = thread % EMU_WARP;
    struct warp *warp = &warps[thread / EMU_WARP];
    mask &= mask == 0xFFFFFFFFu ? warp->lanes : mask;
    mask_check(warp, lane, mask, place);
    struct meeting *meeting = meeting_find(warp, mask, place);
    meeting->records[lane] = record;
    meeting->came |= 1u << lane;
    if (meeting->came != mask) {
        emu_thread_wait("warp collective", place);
        return;
    }
    meeting->mask = 0;
    if (finish) {
        finish(meeting->records, mask);
    }
    for (unsigned others = mask & ~(1u << lane); others; others &= others - 1) {
        emu_thread_wake(first + __builtin_ctz(others));
    }
}

static struct warp_masks *masks_find(struct warp *warp, unsigned mask, meed_emu_place place)
{
    for (int i = 0; i < MASKS_MAX; i++) {
        if (warp->masks[i].mask == mask || warp->masks[i].mask == 0) {
            warp->masks[i].mask = mask;
            return &warp->masks[i];
        }
    }
    emu_fail(place, "more than %d masks in one warp's __syncwarp", MASKS_MAX);
}

void meed_emu_syncwarp(unsigned mask, meed_emu_place place)
{
    struct warp *warp = &warps[emu_thread_now() / EMU_WARP];
    struct warp_masks *masks = masks_find(warp, mask, place);
    int slot = (int)(warp - warps) * MASKS_MAX + (int)(masks - warp->masks);
    void *point = emu_sync_point(FIRST_POINT + slot * 2 + (masks->round & 1));
    /* The round ends when the last lane comes, before any lane can come again. */
    struct round_end {
        static void finish(void *const records[32], unsigned lanes)
        {
            ((struct warp_masks *)records[__builtin_ctz(lanes)])->round++;
        }
    };
    emu_release(point);
    meed_emu_collective(mask, masks, round_end::finish, place);
    emu_acquire(point);
}

/* --- shuffles and votes ---------------------------------------------------------------------- */

static int shuffle_source(const struct meed_emu_shuffle *record, int lane)
{
    int first = lane & ~(record->width - 1);
    int last = first + record->width - 1;
    int from = lane;
    switch (record->kind) {
    case MEED_EMU_IDX:
        return first | (record->operand & (record->width - 1));
    case MEED_EMU_UP:
        from = lane - record->operand;
        return from < first ? lane : from;
    case MEED_EMU_DOWN:
        from = lane + record->operand;
        return from > last ? lane : from;
    case MEED_EMU_XOR:
        from = lane ^ record->operand;
        return from > last ? lane : from;
    }
    return lane;
}

/* What comes from a lane outside the mask is undefined: all ones, a NaN. */
void meed_emu_finish_shuffle(void *const records[32], unsigned mask)
{
    uint64_t values[EMU_WARP];
    for (int i = 0; i < EMU_WARP; i++) {
        values[i] = mask >> i & 1 ? ((struct meed_emu_shuffle *)records[i])->value : UINT64_MAX;
    }
    for (int i = 0; i < EMU_WARP; i++) {
        if (mask >> i & 1) {
            struct meed_emu_shuffle *record = (struct meed_emu_shuffle *)records[i];
            record->value = values[shuffle_source(record, i) & (EMU_WARP - 1)];
        }
    }
}

void meed_emu_finish_vote(void *const records[32], unsigned mask)
{
    unsigned ballot = 0;
    for (int i = 0; i < EMU_WARP; i++) {
        if ((mask >> i & 1) && ((struct meed_emu_vote *)records[i])->mine) {
            ballot |= 1u << i;
        }
    }
    for (int i = 0; i < EMU_WARP; i++) {
        if (mask >> i & 1) {
            ((struct meed_emu_vote *)records[i])->ballot = ballot;
        }
    }
}

/* --- tensor cores ---------------------------------------------------------------------------- */

static void whole_warp(unsigned mask, meed_emu_place place)
{
    if (mask != 0xFFFFFFFFu) {
        emu_fail(place, "ldmatrix and mma need all 32 lanes");
    }
}

void meed_emu_finish_matrix(void *const records[32], unsigned mask)
{
    struct meed_emu_matrix *first = (struct meed_emu_matrix *)records[__builtin_ctz(mask)];
    whole_warp(mask, first->place);
    const void *rows[EMU_WARP];
    for (int i = 0; i < 8 * first->matrices; i++) {
        rows[i] = ((const struct meed_emu_matrix *)records[i])->row;
        if ((uintptr_t)rows[i] % 16 != 0 || !emu_shared_holds(rows[i], 16)) {
            emu_fail(first->place,
                     "ldmatrix row %p of lane %d is not 16 aligned bytes of shared memory", rows[i],
                     i);
        }
    }
    for (int lane = 0; lane < EMU_WARP; lane++) {
        struct meed_emu_matrix *record = (struct meed_emu_matrix *)records[lane];
        for (int j = 0; j < record->matrices; j++) {
            if (record->transposed) {
                record->rows[2 * j] = rows[8 * j + lane % 4 * 2];
                record->rows[2 * j + 1] = rows[8 * j + lane % 4 * 2 + 1];
            } else {
                record->rows[j] = rows[8 * j + lane / 4];
            }
        }
    }
}

static void pair_split(uint32_t pair, float *lo, float *hi)
{
    meed_unpack_bf16x2(pair, lo, hi);
}

void meed_emu_finish_mma(void *const records[32], unsigned mask)
{
    float a[16][16];
    float b[16][8];
    float d[16][8] = {};
    whole_warp(mask, ((const struct meed_emu_mma *)records[__builtin_ctz(mask)])->place);
    for (int lane = 0; lane < EMU_WARP; lane++) {
        const struct meed_emu_mma *record = (const struct meed_emu_mma *)records[lane];
        int g = lane / 4;
        int t = lane % 4 * 2;
        for (int i = 0; i < 4; i++) {
            int row = g + 8 * (i & 1);
            int k = t + 8 * (i >> 1);
            pair_split(record->a[i], &a[row][k], &a[row][k + 1]);
        }
        for (int i = 0; i < 2; i++) {
            pair_split(record->b[i], &b[t + 8 * i][g], &b[t + 8 * i + 1][g]);
        }
    }
    for (int m = 0; m < 16; m++) {
        for (int k = 0; k < 16; k++) {
            for (int n = 0; n < 8; n++) {
                d[m][n] += a[m][k] * b[k][n];
            }
        }
    }
    for (int lane = 0; lane < EMU_WARP; lane++) {
        float *to = ((const struct meed_emu_mma *)records[lane])->d;
        for (int i = 0; i < 4; i++) {
            to[i] += d[lane / 4 + 8 * (i >> 1)][lane % 4 * 2 + (i & 1)];
        }
    }
    emu_count.products++;
}
