/* The page allocator against a model that copies everything.
 *
 * Goal: a slot always reads what was written for it, whatever is shared, cut or grown; no page is
 * lost or owned twice; exhaustion changes nothing. Method: hand-made cases, then thousands of
 * random operations over "pages" that hold the numbers written, beside plain arrays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "base/rng.h"
#include "engine/kv_pages.h"

enum { SLOTS = 6, SLOT_PAGES = 5, PAGES = 14, CAPACITY = SLOT_PAGES * MEED_KV_PAGE };

struct world {
    struct meed_kv_pages *pages;
    int32_t memory[PAGES][MEED_KV_PAGE];
    int32_t model[SLOTS][CAPACITY];
    int32_t lengths[SLOTS];
    int32_t next; /* number to write */
};

static struct world world_open(int32_t pages)
{
    struct world w = {.next = 1};
    assert_int_equal(meed_kv_pages_create(SLOTS, SLOT_PAGES, pages, &w.pages), MEED_OK);
    return w;
}

/* Feeds positions up to `length`. */
static enum meed_status grow(struct world *w, int32_t slot, int32_t length)
{
    struct meed_kv_copy copy;
    enum meed_status st = meed_kv_pages_extend(w->pages, slot, length, &copy);
    if (st != MEED_OK) {
        return st;
    }
    if (copy.from >= 0) {
        memcpy(w->memory[copy.to], w->memory[copy.from], sizeof w->memory[0]);
    }
    const int32_t *row = meed_kv_pages_table(w->pages) + slot * SLOT_PAGES;
    for (int32_t t = w->lengths[slot]; t < length; t++) {
        w->memory[row[t / MEED_KV_PAGE]][t % MEED_KV_PAGE] = w->next;
        w->model[slot][t] = w->next++;
    }
    w->lengths[slot] = length;
    return MEED_OK;
}

static void cut(struct world *w, int32_t slot, int32_t length)
{
    meed_kv_pages_truncate(w->pages, slot, length);
    w->lengths[slot] = length;
}

static void share(struct world *w, int32_t from, int32_t to, int32_t length)
{
    meed_kv_pages_share(w->pages, from, to, length);
    memcpy(w->model[to], w->model[from], (size_t)length * sizeof(int32_t));
    w->lengths[to] = length;
}

/* Every slot reads its own numbers, and pages named by nobody are exactly the free ones. */
static void check(const struct world *w)
{
    bool used[PAGES] = {false};
    int32_t used_count = 0;
    for (int32_t s = 0; s < SLOTS; s++) {
        const int32_t *row = meed_kv_pages_table(w->pages) + s * SLOT_PAGES;
        assert_int_equal(meed_kv_pages_length(w->pages, s), w->lengths[s]);
        for (int32_t t = 0; t < w->lengths[s]; t++) {
            int32_t page = row[t / MEED_KV_PAGE];
            assert_in_range(page, 0, PAGES - 1);
            assert_int_equal(w->memory[page][t % MEED_KV_PAGE], w->model[s][t]);
            used_count += !used[page];
            used[page] = true;
        }
        for (int32_t i = meed_kv_pages_of(w->lengths[s]); i < SLOT_PAGES; i++) {
            assert_int_equal(row[i], -1);
        }
    }
    assert_int_equal(meed_kv_pages_free(w->pages), PAGES - used_count);
}

static void kv_pages_share_and_copy_on_write(void **state)
{
    (void)state;
    struct world w = world_open(PAGES);
    assert_int_equal(grow(&w, 0, 100), MEED_OK);
    assert_int_equal(meed_kv_pages_free(w.pages), PAGES - 2);
    share(&w, 0, 1, 100);
    share(&w, 0, 2, 64);
    assert_int_equal(meed_kv_pages_free(w.pages), PAGES - 2); /* nothing was taken */
    check(&w);
    assert_int_equal(grow(&w, 1, 101), MEED_OK); /* its partial page is copied */
    assert_int_equal(meed_kv_pages_free(w.pages), PAGES - 3);
    assert_int_equal(grow(&w, 2, 65), MEED_OK); /* full pages are not */
    assert_int_equal(meed_kv_pages_free(w.pages), PAGES - 4);
    int64_t version = meed_kv_pages_version(w.pages);
    assert_int_equal(grow(&w, 0, 102), MEED_OK); /* alone again: in place */
    assert_int_equal(meed_kv_pages_version(w.pages), version);
    check(&w);
    cut(&w, 0, 0);
    check(&w);
    meed_kv_pages_destroy(w.pages);
}

static void kv_pages_exhaustion_changes_nothing(void **state)
{
    (void)state;
    struct world w = world_open(PAGES);
    for (int32_t s = 0; s < 2; s++) {
        assert_int_equal(grow(&w, s, CAPACITY), MEED_OK);
    }
    assert_int_equal(grow(&w, 2, 3 * MEED_KV_PAGE + 1), MEED_OK);
    assert_int_equal(meed_kv_pages_free(w.pages), 0);
    share(&w, 2, 3, 3 * MEED_KV_PAGE + 1);
    int64_t version = meed_kv_pages_version(w.pages);
    assert_int_equal(grow(&w, 4, 1), MEED_DEVICE_NOMEM);
    assert_non_null(strstr(meed_last_error(), "slots"));
    assert_int_equal(grow(&w, 3, 3 * MEED_KV_PAGE + 2), MEED_DEVICE_NOMEM); /* the copy */
    assert_int_equal(meed_kv_pages_version(w.pages), version);
    check(&w);
    cut(&w, 0, CAPACITY - MEED_KV_PAGE);
    assert_int_equal(grow(&w, 3, 3 * MEED_KV_PAGE + 2), MEED_OK);
    check(&w);
    meed_kv_pages_destroy(w.pages);
}

static void kv_pages_follow_the_model(void **state)
{
    (void)state;
    struct world w = world_open(PAGES);
    struct meed_rng rng = meed_rng_stream(3, "pages", 0);
    int refused = 0;
    for (int step = 0; step < 5000; step++) {
        int32_t slot = (int32_t)meed_rng_below(&rng, SLOTS);
        int32_t other = (int32_t)meed_rng_below(&rng, SLOTS);
        int32_t room = CAPACITY - w.lengths[slot];
        switch (meed_rng_below(&rng, 3)) {
        case 0:
            refused += grow(&w, slot,
                            w.lengths[slot] + (int32_t)meed_rng_below(&rng, (uint64_t)room + 1)) !=
                       MEED_OK;
            break;
        case 1:
            cut(&w, slot, (int32_t)meed_rng_below(&rng, (uint64_t)w.lengths[slot] + 1));
            break;
        default:
            if (slot != other) {
                share(&w, slot, other,
                      (int32_t)meed_rng_below(&rng, (uint64_t)w.lengths[slot] + 1));
            }
        }
        check(&w);
    }
    assert_in_range(refused, 100, 4000);
    meed_kv_pages_destroy(w.pages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kv_pages_share_and_copy_on_write),
        cmocka_unit_test(kv_pages_exhaustion_changes_nothing),
        cmocka_unit_test(kv_pages_follow_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
