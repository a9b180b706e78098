/* A full disk in the middle of a run: told clearly, survived, and forgotten.
 *
 * Goal: while the state folder cannot grow, pushes fail with a status that clients retry, health is
 * NOT_SERVING, and nothing acknowledged is lost; when there is room again the run ends as if
 * nothing had been. Method: RLIMIT_FSIZE on this process stands in for the disk.
 */
#include "tests/loop/federation_fixture.h"

#include <signal.h>
#include <sys/resource.h>

static enum meed_health_state health(struct fed *fed)
{
    struct meed_rpc_client *rpc = fed_client(fed, 0);
    struct meed_msg_health_request request = {.service = "meed.v1.Federation"};
    struct meed_msg_health_reply reply = {MEED_HEALTH_UNKNOWN};
    struct meed_buf message, answer;
    struct meed_arena arena;
    meed_codec_buf_init(&message);
    meed_codec_buf_init(&answer);
    meed_codec_arena_init(&arena);
    assert_int_equal(meed_codec_pack_health_request(&request, &message), MEED_OK);
    assert_int_equal(meed_rpc_client_unary(rpc, "/grpc.health.v1.Health/Check", message.data,
                                           message.size, 5000, &answer),
                     MEED_OK);
    assert_int_equal(meed_codec_unpack_health_reply(answer.data, answer.size, &arena, &reply),
                     MEED_OK);
    meed_buf_clear(&message);
    meed_buf_clear(&answer);
    meed_arena_clear(&arena);
    meed_rpc_client_close(rpc);
    return reply.state;
}

static bool wait_for(struct fed *fed, enum meed_health_state wanted)
{
    for (int tries = 0; tries < 200; tries++) {
        if (health(fed) == wanted) {
            return true;
        }
        meed_clock_sleep_ms(50);
    }
    return false;
}

static void federation_disk_full_is_told_and_survived(void **state)
{
    (void)state;
    static struct fed fed;
    struct rlimit kept, tight;
    fed_init(&fed, 2);
    fed.config.rounds = 2;
    fed_start(&fed);
    assert_int_equal(fed_play(&fed, 0, 1, 0.1), MEED_OK);
    assert_int_equal(health(&fed), MEED_HEALTH_SERVING);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    tight = kept;
    tight.rlim_cur = 512;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    assert_int_equal(fed_play(&fed, 1, 1, 0.1), MEED_IO);
    assert_true(wait_for(&fed, MEED_HEALTH_NOT_SERVING));
    struct meed_runner_picture picture;
    meed_runner_picture(fed.runner, &picture);
    assert_false(picture.writable);
    assert_int_equal(picture.state.phase, MEED_ROUND_OPEN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    assert_true(wait_for(&fed, MEED_HEALTH_SERVING));
    assert_int_equal(fed_play(&fed, 1, 1, 0.1), MEED_OK);
    assert_int_equal(fed_play(&fed, 0, 2, 0.1), MEED_OK);
    assert_int_equal(fed_play(&fed, 1, 2, 0.1), MEED_OK);
    fed_collect(&fed, 2);
    assert_int_equal(fed_stop(&fed, true), MEED_OK);
    fed_remove(fed.folder);
}

/* The disk fills while a round is settled: the stage is tried again until it can be written. */
static struct rlimit disk_kept;

static void fill_disk(const char *point)
{
    static bool done;
    if (strcmp(point, "settle") == 0 && !done) {
        done = true;
        struct rlimit tight = disk_kept;
        tight.rlim_cur = 512;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    }
}

static void federation_disk_full_while_settling_is_tried_again(void **state)
{
    (void)state;
    static struct fed fed;
    fed_init(&fed, 2);
    fed.config.rounds = 1;
    fed.fault = fill_disk;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &disk_kept), 0);
    fed_start(&fed);
    assert_int_equal(fed_play(&fed, 0, 1, 0.1), MEED_OK);
    assert_int_equal(fed_play(&fed, 1, 1, 0.1), MEED_OK);
    assert_true(wait_for(&fed, MEED_HEALTH_NOT_SERVING));
    struct meed_runner_picture picture;
    meed_runner_picture(fed.runner, &picture);
    assert_int_equal(picture.state.phase, MEED_ROUND_SETTLE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &disk_kept), 0);
    fed_collect(&fed, 1);
    assert_int_equal(fed_stop(&fed, true), MEED_OK);
    fed_remove(fed.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(federation_disk_full_is_told_and_survived),
        cmocka_unit_test(federation_disk_full_while_settling_is_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
