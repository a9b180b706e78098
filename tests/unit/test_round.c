/* The round machine under every order of events.
 *
 * Goal: whatever comes, in whatever order, the machine neither loses nor doubles an update, closes
 * once, runs each stage once and ends. Method: hand-written orders for each verdict; then all event
 * sequences of a fixed depth over a small alphabet, and long random ones with restarts, checked
 * against invariants after every step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "base/rng.h"
#include "server/round.h"

static struct meed_round start(int32_t rounds, int32_t clients, int32_t quorum)
{
    struct meed_round_config config = {rounds, clients, quorum, 100};
    struct meed_round round;
    assert_int_equal(meed_round_init(&config, &round), MEED_OK);
    return round;
}

static struct meed_round_outcome play(struct meed_round *round, struct meed_round_event event)
{
    struct meed_round_outcome outcome;
    meed_round_step(round, &event, &outcome);
    *round = outcome.next;
    return outcome;
}

static struct meed_round_event update(int32_t client, int32_t round)
{
    return (struct meed_round_event){
        .kind = MEED_ROUND_EVENT_UPDATE, .client = client, .round = round, .shape_fits = true};
}

static struct meed_round_event at(enum meed_round_event_kind kind, int64_t now_ms)
{
    return (struct meed_round_event){.kind = kind, .now_ms = now_ms};
}

static void round_gives_each_fault_its_verdict(void **state)
{
    (void)state;
    struct meed_round round = start(2, 3, 2);
    assert_int_equal(play(&round, update(0, 1)).verdict, MEED_ROUND_TAKEN);
    struct meed_round_event again = update(0, 1);
    assert_int_equal(play(&round, again).verdict, MEED_ROUND_CONFLICT);
    again.same_bytes = true;
    assert_int_equal(play(&round, again).verdict, MEED_ROUND_DUPLICATE);
    assert_int_equal(play(&round, update(1, 2)).verdict, MEED_ROUND_EARLY);
    assert_int_equal(play(&round, update(3, 1)).verdict, MEED_ROUND_STRANGER);
    assert_int_equal(play(&round, update(-1, 1)).verdict, MEED_ROUND_STRANGER);
    struct meed_round_event bad = update(1, 1);
    bad.shape_fits = false;
    assert_int_equal(play(&round, bad).verdict, MEED_ROUND_MISSHAPEN);
    assert_int_equal(play(&round, update(1, 1)).actions, MEED_ROUND_DO_STORE);
    struct meed_round_outcome last = play(&round, update(2, 1));
    assert_int_equal(last.actions, MEED_ROUND_DO_STORE | MEED_ROUND_DO_SCREEN);
    assert_int_equal(round.phase, MEED_ROUND_SCREEN);
    assert_int_equal(play(&round, again).verdict, MEED_ROUND_DUPLICATE);
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_VALUED, 0)).verdict, MEED_ROUND_OUT_OF_ORDER);
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_SCREENED, 0)).actions, MEED_ROUND_DO_VALUE);
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_VALUED, 0)).actions, MEED_ROUND_DO_SETTLE);
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_SETTLED, 0)).actions, MEED_ROUND_DO_PUBLISH);
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_PUBLISHED, 0)).actions, MEED_ROUND_DO_OPEN);
    assert_int_equal(round.round, 2);
    assert_int_equal(round.arrived_count, 0);
    assert_int_equal(play(&round, update(0, 1)).verdict, MEED_ROUND_STALE);
    for (int verdict = 0; verdict < MEED_ROUND_VERDICT_COUNT; verdict++) {
        enum meed_status status =
            meed_round_verdict_status(&round, (enum meed_round_verdict)verdict, 1);
        assert_true((status == MEED_OK) ==
                    (verdict == MEED_ROUND_TAKEN || verdict == MEED_ROUND_DUPLICATE));
    }
}

static void round_closes_at_its_deadline(void **state)
{
    (void)state;
    struct meed_round round = start(3, 3, 2);
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_TICK, 1000000)).actions, 0);
    assert_int_equal(meed_round_remaining_ms(&round, 5), -1);
    play(&round, at(MEED_ROUND_EVENT_PRESENT, 1000));
    play(&round, at(MEED_ROUND_EVENT_PRESENT, 1050));
    assert_int_equal(meed_round_remaining_ms(&round, 1001), 99);
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_TICK, 1099)).actions, 0);
    play(&round, update(0, 1));
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_TICK, 1100)).actions, MEED_ROUND_DO_ABANDON);
    assert_int_equal(play(&round, update(1, 1)).verdict, MEED_ROUND_LATE);
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_SCREENED, 0)).verdict,
                     MEED_ROUND_OUT_OF_ORDER);
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_PUBLISHED, 0)).actions, MEED_ROUND_DO_OPEN);
    assert_int_equal(round.deadline_at_ms, -1);
    play(&round, at(MEED_ROUND_EVENT_PRESENT, 2000));
    play(&round, update(2, 2));
    play(&round, update(1, 2));
    assert_int_equal(play(&round, at(MEED_ROUND_EVENT_TICK, 2100)).actions, MEED_ROUND_DO_SCREEN);
}

static void round_refuses_impossible_numbers(void **state)
{
    (void)state;
    struct meed_round round;
    const struct meed_round_config bad[] = {
        {0, 1, 1, 1}, {1, 0, 1, 1}, {1, MEED_LIMIT_CLIENTS + 1, 1, 1},
        {1, 2, 3, 1}, {1, 2, 0, 1}, {1, 2, 1, 0}};
    for (size_t i = 0; i < MEED_COUNT(bad); i++) {
        assert_int_equal(meed_round_init(&bad[i], &round), MEED_CONFIG);
    }
    struct meed_round_config good = {2, 2, 1, 1};
    assert_int_equal(meed_round_resume(&good, 3, MEED_ROUND_OPEN, &round), MEED_STATE);
    assert_int_equal(meed_round_resume(&good, 1, MEED_ROUND_PHASE_COUNT, &round), MEED_STATE);
    assert_int_equal(meed_round_resume(&good, 2, MEED_ROUND_VALUE, &round), MEED_OK);
    assert_int_equal(meed_round_mark(&round, 1), MEED_OK);
    assert_int_equal(meed_round_mark(&round, 1), MEED_STATE);
    assert_int_equal(meed_round_mark(&round, 2), MEED_STATE);
}

/* ---- invariants ------------------------------------------------------------------------------ */

static int bits_of(const struct meed_round *round)
{
    int bits = 0;
    for (int32_t i = 0; i < round->config.clients; i++) {
        bits += meed_round_has(round, i);
    }
    return bits;
}

/* What must hold between a state and its successor, whatever the event. */
static void check_step(const struct meed_round *before, const struct meed_round_event *event,
                       const struct meed_round_outcome *outcome)
{
    const struct meed_round *after = &outcome->next;
    assert_int_equal(bits_of(after), after->arrived_count);
    assert_in_range(after->round, before->round, before->round + 1);
    assert_in_range(after->round, 1, after->config.rounds);
    if (outcome->verdict != MEED_ROUND_TAKEN) {
        assert_memory_equal(before, after, sizeof *before);
        assert_int_equal(outcome->actions, 0);
    }
    if (outcome->actions & MEED_ROUND_DO_STORE) {
        assert_int_equal(before->phase, MEED_ROUND_OPEN);
        assert_false(meed_round_has(before, event->client));
        assert_true(meed_round_has(after, event->client));
    }
    if (after->round == before->round) {
        assert_true(after->phase >= before->phase);
        assert_true(after->arrived_count >= before->arrived_count);
    } else {
        assert_int_equal(after->phase, MEED_ROUND_OPEN);
    }
    bool moved = after->phase != before->phase || after->round != before->round;
    assert_int_equal(moved, (outcome->actions & ~(uint32_t)MEED_ROUND_DO_STORE) != 0);
    if (after->phase == MEED_ROUND_SCREEN && moved) {
        assert_true(after->arrived_count >= after->config.quorum);
    }
    if (before->phase == MEED_ROUND_FINISHED) {
        assert_memory_equal(before, after, sizeof *before);
    }
}

static struct meed_round_event letter(int symbol, int64_t now_ms)
{
    if (symbol < 4) {
        return (struct meed_round_event){.kind = MEED_ROUND_EVENT_UPDATE,
                                         .client = symbol & 1,
                                         .round = 1 + (symbol >> 1),
                                         .shape_fits = true};
    }
    static const enum meed_round_event_kind kinds[] = {
        MEED_ROUND_EVENT_PRESENT, MEED_ROUND_EVENT_TICK,    MEED_ROUND_EVENT_SCREENED,
        MEED_ROUND_EVENT_VALUED,  MEED_ROUND_EVENT_SETTLED, MEED_ROUND_EVENT_PUBLISHED};
    return at(kinds[symbol - 4], now_ms);
}

static long explore(const struct meed_round *round, int depth, int64_t now_ms)
{
    long visited = 1;
    if (depth == 0) {
        return visited;
    }
    for (int symbol = 0; symbol < 10; symbol++) {
        struct meed_round_event event = letter(symbol, now_ms + 60);
        struct meed_round_outcome outcome;
        meed_round_step(round, &event, &outcome);
        check_step(round, &event, &outcome);
        if (outcome.verdict == MEED_ROUND_TAKEN) {
            visited += explore(&outcome.next, depth - 1, now_ms + 60);
        }
    }
    return visited;
}

static void round_keeps_its_invariants_in_every_order(void **state)
{
    (void)state;
    struct meed_round round = start(2, 2, 1);
    assert_true(explore(&round, 8, 0) > 10000);
}

/* Random events with restarts: the resumed state must go on exactly like the one in memory. */
static void round_survives_random_lives(void **state)
{
    (void)state;
    int finished = 0;
    for (uint64_t life = 0; life < 400; life++) {
        struct meed_rng rng = meed_rng_stream(7, "round", life);
        struct meed_round round =
            start(1 + (int32_t)meed_rng_below(&rng, 4), 1 + (int32_t)meed_rng_below(&rng, 9), 1);
        int64_t now_ms = 0;
        for (int step = 0; step < 600 && round.phase != MEED_ROUND_FINISHED; step++) {
            now_ms += (int64_t)meed_rng_below(&rng, 20);
            struct meed_round_event event = {
                .kind = (enum meed_round_event_kind)meed_rng_below(&rng, MEED_ROUND_EVENT_COUNT),
                .now_ms = now_ms,
                .client = (int32_t)meed_rng_below(&rng, 11) - 1,
                .round = round.round + (int32_t)meed_rng_below(&rng, 3) - 1,
                .shape_fits = meed_rng_below(&rng, 4) != 0,
                .same_bytes = meed_rng_below(&rng, 2) != 0};
            struct meed_round_outcome outcome;
            meed_round_step(&round, &event, &outcome);
            check_step(&round, &event, &outcome);
            round = outcome.next;
            if (meed_rng_below(&rng, 10) == 0) {
                struct meed_round copy;
                assert_int_equal(meed_round_resume(&round.config, round.round, round.phase, &copy),
                                 MEED_OK);
                for (int32_t i = 0; i < round.config.clients; i++) {
                    if (meed_round_has(&round, i)) {
                        assert_int_equal(meed_round_mark(&copy, i), MEED_OK);
                    }
                }
                round.deadline_at_ms = -1;
                assert_memory_equal(&copy, &round, sizeof copy);
            }
        }
        finished += round.phase == MEED_ROUND_FINISHED;
    }
    assert_true(finished > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_gives_each_fault_its_verdict),
        cmocka_unit_test(round_closes_at_its_deadline),
        cmocka_unit_test(round_refuses_impossible_numbers),
        cmocka_unit_test(round_keeps_its_invariants_in_every_order),
        cmocka_unit_test(round_survives_random_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
