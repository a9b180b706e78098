/* Shared memory of the block that runs: 163 KB, as a block of sm_80 may have, all of it 0xFF (NaN
 * in fp32 and bf16) until the kernel writes.
 *
 * Dynamic memory comes first, at a multiple of 1,024. Statics are given out where a thread first
 * declares them, told apart by the address of a variable that each MEED_SHARED brings along. Under
 * ASan everything that was not given out is poisoned, a gap before each static included, so one
 * element past the end is reported.
 *
 * Under TSan the whole is mapped afresh, at the same address, for every block: what the last block
 * did to it, and to the barriers' objects in its first pages, is nothing this block can race with
 * or be ordered by.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "tests/emu/emu_engine.h"

static constexpr size_t SYNC_STEP = 8;
static constexpr size_t SYNC_BYTES = EMU_SYNC_POINTS * SYNC_STEP;
static constexpr size_t GAP_BYTES = 32;
static constexpr int STATICS_MAX = 64;
static constexpr size_t ARENA_BYTES = EMU_SHARED_MAX + STATICS_MAX * (GAP_BYTES + 16);
static constexpr size_t MAP_BYTES = (SYNC_BYTES + ARENA_BYTES + 4095) / 4096 * 4096;
static_assert(SYNC_BYTES % 1024 == 0, "the arena's alignment");

static struct {
    char *map;
    char *arena;
    size_t dynamic_bytes;
    size_t static_bytes; /* without gaps */
    size_t used;
    int static_count;
    struct {
        const void *key;
        char *memory;
    } statics[STATICS_MAX];
} shared;

static void region_open(char *from, size_t bytes)
{
#if MEED_EMU_CHECKER == 1
    __asan_unpoison_memory_region(from, bytes);
#endif
    for (size_t i = 0; i < bytes; i++) {
        from[i] = (char)0xFF;
    }
}

static void arena_map(void)
{
    void *at = shared.map;
    int fixed = 0;
    if (shared.map) {
#if MEED_EMU_CHECKER != 2
        return;
#endif
        munmap(shared.map, MAP_BYTES);
        fixed = MAP_FIXED;
    }
    at = mmap(at, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);
    if (at == MAP_FAILED) {
        perror("emulator: cannot map shared memory");
        abort();
    }
    shared.map = (char *)at;
    shared.arena = shared.map + SYNC_BYTES;
}

void emu_shared_begin(size_t dynamic_bytes)
{
    arena_map();
#if MEED_EMU_CHECKER == 1
    __asan_poison_memory_region(shared.arena, ARENA_BYTES);
#endif
    shared.dynamic_bytes = dynamic_bytes;
    shared.static_bytes = 0;
    shared.static_count = 0;
    shared.used = (dynamic_bytes + 15) / 16 * 16;
    region_open(shared.arena, dynamic_bytes);
}

void *meed_emu_dynamic_shared(void)
{
    return shared.arena;
}

void *meed_emu_static_shared(const void *key, size_t bytes, meed_emu_place place)
{
    for (int i = 0; i < shared.static_count; i++) {
        if (shared.statics[i].key == key) {
            return shared.statics[i].memory;
        }
    }
    size_t rounded = (bytes + 15) / 16 * 16;
    if (shared.static_count == STATICS_MAX) {
        emu_fail(place, "more than %d static shared variables", STATICS_MAX);
    }
    if (shared.static_bytes + rounded > EMU_SHARED_STATIC_MAX ||
        shared.static_bytes + rounded + shared.dynamic_bytes > EMU_SHARED_MAX) {
        emu_fail(place, "%zu bytes of static and %zu of dynamic shared memory are too many",
                 shared.static_bytes + rounded, shared.dynamic_bytes);
    }
    char *memory = shared.arena + shared.used + GAP_BYTES;
    shared.statics[shared.static_count].key = key;
    shared.statics[shared.static_count++].memory = memory;
    shared.static_bytes += rounded;
    shared.used += GAP_BYTES + rounded;
    region_open(memory, bytes);
    return memory;
}

bool emu_shared_holds(const void *address, size_t bytes)
{
    const char *from = (const char *)address;
    return from >= shared.arena && from + bytes <= shared.arena + shared.used;
}

void *emu_sync_point(int index)
{
    return shared.map + (size_t)index * SYNC_STEP;
}
