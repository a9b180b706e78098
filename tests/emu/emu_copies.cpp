/* cp.async: copies that land as early, or as late, as the rules allow.
 *
 * A copy may land at once; it must have landed when its thread returns from a wait that covers its
 * group. Both extremes are legal executions, and a kernel that reads too soon is wrong under the
 * late one, a kernel that overwrites a buffer still being read under the early one. Landed bytes
 * are the issuing thread's: only a barrier hands them to others, which TSan knows since the copy is
 * made by that thread's fibre through memcpy, which it intercepts.
 */
#include "tests/emu/emu_engine.h"

static constexpr int PENDING_MAX = 512;

struct copy {
    void *to;
    const void *from;
    int bytes;
    int group;
    meed_emu_place place;
};
struct queue {
    int count;
    int done;      /* copies before this one have landed */
    int committed; /* groups */
    struct copy copies[PENDING_MAX];
};
static struct queue queues[EMU_THREADS_MAX];

void emu_copies_begin(int threads)
{
    for (int i = 0; i < threads; i++) {
        queues[i].count = queues[i].done = queues[i].committed = 0;
    }
}

static void copy_land(const struct copy *copy)
{
    memcpy(copy->to, copy->from, (size_t)copy->bytes);
    memset((char *)copy->to + copy->bytes, 0, (size_t)(16 - copy->bytes));
}

void meed_emu_copy16(void *to, const void *from, int src_bytes, meed_emu_place place)
{
    struct queue *queue = &queues[emu_thread_now()];
    if ((uintptr_t)to % 16 != 0 || !emu_shared_holds(to, 16)) {
        emu_fail(place, "cp.async to %p, which is not 16 aligned bytes of shared memory", to);
    }
    if (src_bytes < 0 || src_bytes > 16 || (src_bytes > 0 && (uintptr_t)from % 16 != 0)) {
        emu_fail(place, "cp.async of %d bytes from %p, which is misaligned", src_bytes, from);
    }
    if (queue->count == PENDING_MAX) {
        emu_fail(place, "more than %d copies of one thread under way", PENDING_MAX);
    }
    struct copy *copy = &queue->copies[queue->count++];
    *copy = {to, from, src_bytes, queue->committed, place};
    emu_count.copies++;
    if (!emu_copies_late()) {
        copy_land(copy);
    }
}

void meed_emu_copy_commit(void)
{
    queues[emu_thread_now()].committed++;
}

void meed_emu_copy_wait(int groups, meed_emu_place place)
{
    (void)place;
    struct queue *queue = &queues[emu_thread_now()];
    while (queue->done < queue->count &&
           queue->copies[queue->done].group < queue->committed - groups) {
        if (emu_copies_late()) {
            copy_land(&queue->copies[queue->done]);
        }
        queue->done++;
    }
    if (queue->done == queue->count) {
        queue->done = queue->count = 0;
    }
}

/* The hardware lets a thread go; its block's memory may be gone when the copy lands. */
void emu_copies_end(int thread)
{
    const struct queue *queue = &queues[thread];
    if (queue->done < queue->count) {
        emu_fail(queue->copies[queue->done].place,
                 "the thread ends before this copy was waited for");
    }
}
