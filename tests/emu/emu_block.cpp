/* Blocks and their threads: who runs, who waits, who failed.
 *
 * A fibre takes unstarted threads one after another, so a kernel without barriers needs one fibre
 * and no switch. A thread that must wait picks its successor itself: an unstarted thread on another
 * fibre, or one that was woken; where there is neither, nothing in this block can ever run again,
 * and the report of who waits where is the most useful message of the emulator.
 *
 * Under TSan every thread has a fibre of its own. A fibre keeps its clock, and a barrier joins the
 * clocks of a block, so a block that ran on another's fibres would look ordered behind all of it:
 * blocks take turns on two sets, and a race between neighbours, in the order in which they run, is
 * seen. Within a set of n + 1, thread i of block b runs on fibre (i + b) mod (n + 1), for kernels
 * without a barrier. Start and end of a launch are two objects, the end is acquired once, after the
 * last block: with one object, each block would follow the one before it.
 */
#include <stdarg.h>
#include <stdio.h>
#include "tests/emu/emu_engine.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;
struct meed_emu_count emu_count;

static constexpr bool OWN_FIBRE = MEED_EMU_CHECKER == 2;
static constexpr int SETS = OWN_FIBRE ? 2 : 1;
static_assert(SETS * (EMU_THREADS_MAX + 1) <= EMU_FIBRES_MAX, "every set may hold a largest block");
static constexpr int NOBODY = -1;

enum stage { UNSTARTED, READY, RUNNING, WAITING, EXITED };
struct thread {
    uint3 idx;
    enum stage stage;
    int fibre;
    const char *what; /* it waits for */
    meed_emu_place place;
};

static struct {
    const struct meed_emu_launch *launch;
    void (*body)(const void *arguments);
    const void *arguments;
    bool failed;
    int count;
    int now;         /* the running thread; NOBODY on the host */
    int64_t ordinal; /* blocks of this launch before this one */
    uint64_t random;
    struct thread threads[EMU_THREADS_MAX];
    int order[EMU_THREADS_MAX];
    int started;
    int exited;
    /* Ready threads: a ring in order of waking. */
    int ready[EMU_THREADS_MAX];
    int ready_first;
    int ready_count;
    /* Fibres between two threads, and the thread each is to run next. */
    int idle[EMU_FIBRES_MAX];
    int idle_count;
    int assigned[EMU_FIBRES_MAX];
    struct {
        meed_emu_place place;
        int came;
        int round;
    } barrier;
} block;
static struct meed_emu_mode mode;
static char start_point;
static char end_point;
static char fence_point;

/* --- what others ask ------------------------------------------------------------------------- */

int emu_thread_now(void)
{
    return block.now;
}
bool emu_copies_late(void)
{
    return mode.late;
}
void meed_emu_mode_set(struct meed_emu_mode wanted)
{
    mode = wanted;
}
struct meed_emu_count meed_emu_counted(void)
{
    return emu_count;
}
enum meed_emu_checker meed_emu_checker(void)
{
    return (enum meed_emu_checker)MEED_EMU_CHECKER;
}

/* splitmix64 (Steele and others 2014). */
static uint64_t random_next(void)
{
    uint64_t z = block.random += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
static int random_below(int count)
{
    return (int)(random_next() % (uint64_t)count);
}

/* --- failures -------------------------------------------------------------------------------- */

static void report_begin(const char *kernel)
{
    fprintf(stderr, "emulator: kernel %s, block (%u, %u, %u)", kernel, blockIdx.x, blockIdx.y,
            blockIdx.z);
    if (block.now != NOBODY) {
        fprintf(stderr, ", thread (%u, %u, %u)", threadIdx.x, threadIdx.y, threadIdx.z);
    }
}

[[noreturn]] static void launch_leave(void)
{
    fprintf(stderr, "emulator: repeat with MEED_EMU_SEED=%llu MEED_EMU_COPIES=%s\n",
            (unsigned long long)mode.seed, mode.late ? "late" : "early");
    block.failed = true;
    emu_fibre_switch(EMU_HOST);
    __builtin_unreachable();
}

void emu_fail(meed_emu_place place, const char *format, ...)
{
    report_begin(block.launch->kernel);
    fprintf(stderr, ": %s:%d: ", place.file, place.line);
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    launch_leave();
}

/* Every place at which threads wait, with their number and the first of them. */
[[noreturn]] static void deadlock(void)
{
    int none = block.now;
    block.now = NOBODY;
    report_begin(block.launch->kernel);
    block.now = none;
    fprintf(stderr, ": deadlock, %d of %d threads have exited\n", block.exited, block.count);
    for (int i = 0; i < block.count; i++) {
        const struct thread *first = &block.threads[i];
        int waiting = 0;
        bool told = first->stage != WAITING;
        for (int j = 0; j < block.count && !told; j++) {
            const struct thread *other = &block.threads[j];
            bool same = other->stage == WAITING && other->place.line == first->place.line &&
                        other->place.file == first->place.file;
            told = same && j < i;
            waiting += same;
        }
        if (!told) {
            fprintf(stderr, "emulator:   %d wait for a %s at %s:%d, the first is thread %d\n",
                    waiting, first->what, first->place.file, first->place.line, i);
        }
    }
    launch_leave();
}

/* --- scheduling ------------------------------------------------------------------------------ */

static int ready_take(void)
{
    if (mode.seed != 0) {
        int at = (block.ready_first + random_below(block.ready_count)) % EMU_THREADS_MAX;
        int kept = block.ready[at];
        block.ready[at] = block.ready[block.ready_first];
        block.ready[block.ready_first] = kept;
    }
    int taken = block.ready[block.ready_first];
    block.ready_first = (block.ready_first + 1) % EMU_THREADS_MAX;
    block.ready_count--;
    return taken;
}

/* NOBODY where every thread waits or has exited. */
static int thread_choose(void)
{
    bool fresh = block.started < block.count;
    if (fresh && mode.seed != 0 && block.ready_count > 0) {
        fresh = random_below(4) < 3;
    }
    if (fresh) {
        return block.order[block.started++];
    }
    return block.ready_count > 0 ? ready_take() : NOBODY;
}

static int own_fibre(int thread)
{
    int64_t size = block.count + 1;
    return (int)(block.ordinal % SETS * size + (thread + block.ordinal) % size);
}

static int fibre_of(int thread)
{
    struct thread *chosen = &block.threads[thread];
    if (chosen->stage == UNSTARTED) {
        chosen->fibre = OWN_FIBRE ? own_fibre(thread) : block.idle[--block.idle_count];
        block.assigned[chosen->fibre] = thread;
    }
    return chosen->fibre;
}

static void thread_enter(int thread)
{
    block.now = thread;
    threadIdx = block.threads[thread].idx;
    block.threads[thread].stage = RUNNING;
}

void emu_thread_wait(const char *what, meed_emu_place place)
{
    int self = block.now;
    block.threads[self].stage = WAITING;
    block.threads[self].what = what;
    block.threads[self].place = place;
    int next = thread_choose();
    if (next == NOBODY) {
        deadlock();
    }
    if (next != self) {
        emu_fibre_switch(fibre_of(next));
    }
    thread_enter(self);
}

void emu_thread_wake(int thread)
{
    block.threads[thread].stage = READY;
    block.ready[(block.ready_first + block.ready_count++) % EMU_THREADS_MAX] = thread;
}

static void thread_run(int thread)
{
    thread_enter(thread);
    emu_acquire(&start_point);
    block.body(block.arguments);
    emu_copies_end(thread);
    if (block.barrier.came > 0) {
        emu_fail(block.barrier.place, "thread %d exits while others wait at this barrier", thread);
    }
    emu_warp_exit(thread);
    emu_release(&end_point);
    block.threads[thread].stage = EXITED;
    block.exited++;
}

void emu_fibre_main(int fibre)
{
    for (;;) {
        thread_run(block.assigned[fibre]);
        int next = block.exited == block.count ? EMU_HOST : thread_choose();
        if (block.exited < block.count && next == NOBODY) {
            deadlock();
        }
        if (next != EMU_HOST && !OWN_FIBRE && block.threads[next].stage == UNSTARTED) {
            block.threads[next].fibre = fibre;
            block.assigned[fibre] = next;
            continue;
        }
        block.idle[block.idle_count] = fibre;
        block.idle_count += OWN_FIBRE ? 0 : 1;
        emu_fibre_switch(next == EMU_HOST ? EMU_HOST : fibre_of(next));
    }
}

/* --- barriers -------------------------------------------------------------------------------- */

void meed_emu_barrier(meed_emu_place place)
{
    if (block.exited > 0) {
        emu_fail(place, "a block barrier after %d threads have exited", block.exited);
    }
    if (block.barrier.came == 0) {
        block.barrier.place = place;
    } else if (block.barrier.place.line != place.line || block.barrier.place.file != place.file) {
        emu_fail(place, "threads diverge: others wait at the barrier %s:%d",
                 block.barrier.place.file, block.barrier.place.line);
    }
    void *point = emu_sync_point(block.barrier.round & 1);
    emu_release(point);
    if (++block.barrier.came < block.count) {
        emu_thread_wait("block barrier", place);
    } else {
        block.barrier.came = 0;
        block.barrier.round++;
        for (int i = 0; i < block.count; i++) {
            if (block.threads[i].stage == WAITING) {
                emu_thread_wake(i);
            }
        }
        if (mode.seed != 0) {
            int self = block.now;
            emu_thread_wake(self);
            int next = thread_choose();
            if (next != self) {
                emu_fibre_switch(fibre_of(next));
            }
            thread_enter(self);
        }
    }
    emu_acquire(point);
}

/* TSan knows no fences; a fence that acquires and releases one object lets the pattern "write,
 * fence, count up; the last block reads" pass, and a forgotten fence fail. */
void meed_emu_fence(void)
{
    emu_acquire(&fence_point);
    emu_release(&fence_point);
}

/* --- launches -------------------------------------------------------------------------------- */

static void block_begin(int64_t rank, int64_t ordinal)
{
    int64_t x = block.launch->grid.x;
    int64_t y = block.launch->grid.y;
    blockIdx = {(unsigned)(rank % x), (unsigned)(rank / x % y), (unsigned)(rank / x / y)};
    block.ordinal = ordinal;
    block.random = mode.seed * 0x9E3779B97F4A7C15u ^ (uint64_t)rank;
    block.started = block.exited = block.ready_first = block.ready_count = 0;
    block.barrier.came = block.barrier.round = 0;
    for (int i = 0; i < block.count; i++) {
        block.threads[i].stage = UNSTARTED;
        block.order[i] = i;
    }
    for (int i = block.count - 1; i > 0 && mode.seed != 0; i--) {
        int other = random_below(i + 1);
        int kept = block.order[i];
        block.order[i] = block.order[other];
        block.order[other] = kept;
    }
    block.idle_count = 0;
    for (int i = block.count; i >= 0; i--) {
        block.idle[block.idle_count++] = i;
    }
    emu_warps_begin(block.count);
    emu_copies_begin(block.count);
    emu_shared_begin(block.launch->shared_bytes);
    emu_count.blocks++;
    emu_count.threads += block.count;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    return b == 0 ? a : common_divisor(b, a % b);
}

/* Blocks run from `first` in steps of `step`: all of them, in an order of the seed's. */
static void blocks_order(int64_t count, int64_t *first, int64_t *step)
{
    *first = 0;
    *step = 1;
    if (mode.seed != 0) {
        block.random = mode.seed;
        *first = (int64_t)(random_next() % (uint64_t)count);
        *step = 1 + (int64_t)(random_next() % (uint64_t)count);
        while (common_divisor(*step, count) != 1) {
            ++*step;
        }
    }
}

static void blocks_run(int64_t count)
{
    int64_t rank;
    int64_t step;
    blocks_order(count, &rank, &step);
    for (int64_t i = 0; i < count && !block.failed; i++) {
        block_begin(rank, i);
        emu_release(&start_point);
        emu_fibre_switch(fibre_of(thread_choose()));
        block.now = NOBODY;
        rank = (rank + step) % count;
    }
    emu_acquire(&end_point);
}

static void indices_set(dim3 shape)
{
    for (int i = 0; i < block.count; i++) {
        unsigned u = (unsigned)i;
        block.threads[i].idx = {u % shape.x, u / shape.x % shape.y, u / shape.x / shape.y};
    }
}

bool emu_blocks_run(const struct meed_emu_launch *launch, void (*body)(const void *arguments),
                    const void *arguments)
{
    block.launch = launch;
    block.body = body;
    block.arguments = arguments;
    block.failed = false;
    block.now = NOBODY;
    block.count = (int)(launch->block.x * launch->block.y * launch->block.z);
    blockDim = launch->block;
    gridDim = launch->grid;
    indices_set(launch->block);
    emu_fibres_reserve(SETS * (block.count + 1));
    blocks_run((int64_t)launch->grid.x * launch->grid.y * launch->grid.z);
    emu_count.launches++;
    if (block.failed) {
        emu_fibres_reset();
    }
    return !block.failed;
}
