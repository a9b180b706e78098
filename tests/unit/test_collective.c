/* The collective on the host.
 *
 * Goal: sums are those of one process adding in rank order, bit for bit, for any number of ranks
 * and parts, sizes around a chunk included; who fails or dies takes the others down with one
 * sentence; late ranks, stale files and strangers change nothing; a rank that never comes is named.
 * Method: ranks are forked processes of this program, which say by their exit code whether all was
 * well (an assertion in a child would run cmocka's report twice). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "kernels/collective.h"
#include "tests/support/command.h"
#include "tests/support/ranks.h"

enum { MAX_RANKS = 5, PATIENCE_MS = 20000 };
static char scratch[SCRATCH_BYTES];

static int setup(void **state)
{
    (void)state;
    scratch_make(scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static struct meed_rendezvous place_of(int32_t rank, int32_t world, const char *key)
{
    return (struct meed_rendezvous){.rank = rank,
                                    .world = world,
                                    .folder = scratch,
                                    .key = key,
                                    .one_machine = true,
                                    .patience_ms = PATIENCE_MS};
}

/* In a rank's body: ends it with the line that was not well. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %d, line %d: %s\n", rank, __LINE__, meed_last_error());          \
            return __LINE__ % 200 + 1;                                                             \
        }                                                                                          \
    } while (0)

/* ---- sums -------------------------------------------------------------------------------------
 */

static float value_of(int32_t rank, int64_t i)
{
    struct meed_rng rng = meed_rng_stream((uint64_t)rank + 7, "part", (uint64_t)i);
    return (float)(meed_rng_unit(&rng) - 0.5) * (float)(1 << (i % 20));
}

static int sums_have_the_order(int32_t rank, int32_t world, const char *key)
{
    enum { MOST = (256 << 10) + 3 };
    static const int64_t sizes[] = {1, 2, 3, 17, 1023, MOST};
    static float sum[MOST], want[MOST], part[MOST];
    struct meed_rendezvous place = place_of(rank, world, key);
    struct meed_collective *collective = NULL;
    struct meed_backend *be = NULL;
    CHECK(meed_backend_open_cpu(NULL, NULL, &be) == MEED_OK);
    CHECK(meed_collective_open(&place, &collective) == MEED_OK);
    CHECK(meed_collective_rank(collective) == rank && meed_collective_world(collective) == world);
    for (size_t s = 0; s < MEED_COUNT(sizes); s++) {
        for (int32_t parts = sizes[s] < MOST ? 1 : world; parts <= world; parts++) {
            for (int64_t i = 0; i < sizes[s]; i++) {
                want[i] = sum[i] = value_of(-1, i);
                part[i] = value_of(rank, i);
                for (int32_t r = 0; r < parts; r++) {
                    want[i] += value_of(r, i);
                }
            }
            CHECK(meed_collective_sum(collective, be, sum, part, sizes[s], parts) == MEED_OK);
            CHECK(memcmp(sum, want, (size_t)sizes[s] * sizeof *sum) == 0);
        }
    }
    meed_collective_close(collective);
    meed_backend_close(be);
    return 0;
}

static void sums_are_in_rank_order(void **state)
{
    (void)state;
    char key[32];
    for (int32_t world = 1; world <= MAX_RANKS; world++) {
        snprintf(key, sizeof key, "sums-%d", world);
        ranks_run(sums_have_the_order, world, key, 60);
    }
}

/* ---- small things -----------------------------------------------------------------------------
 */

static int small_things(int32_t rank, int32_t world, const char *key)
{
    struct meed_rendezvous place = place_of(rank, world, key);
    struct meed_collective *collective = NULL;
    char path[256];
    int64_t mine = 100 + rank, all[MAX_RANKS];
    bool any = false;
    CHECK(meed_collective_open(&place, &collective) == MEED_OK);
    snprintf(path, sizeof path, "%s/rendezvous-%s", scratch, key);
    CHECK(access(path, F_OK) != 0); /* the token does not outlive the meeting */
    for (int turn = 0; turn < 100; turn++) {
        CHECK(meed_collective_gather(collective, &mine, sizeof mine, all) == MEED_OK);
        for (int32_t r = 0; r < world; r++) {
            CHECK(all[r] == 100 + r);
        }
    }
    CHECK(meed_collective_any(collective, false, &any) == MEED_OK && !any);
    CHECK(meed_collective_any(collective, rank == world - 1, &any) == MEED_OK && any);
    CHECK(meed_collective_same(collective, "alike", 5, "word") == MEED_OK);
    enum meed_status same = meed_collective_same(collective, &mine, sizeof mine, "number");
    CHECK(same == (world > 1 ? MEED_VERSION : MEED_OK));
    CHECK(world == 1 || strstr(meed_last_error(), "rank 1 has not rank 0's number"));
    meed_collective_close(collective);
    return 0;
}

static void ranks_tell_each_other_small_things(void **state)
{
    (void)state;
    bool any = true;
    ranks_run(small_things, 1, "small-1", 60);
    ranks_run(small_things, 2, "small-2", 60);
    ranks_run(small_things, 5, "small-5", 60);
    assert_int_equal(meed_collective_any(NULL, false, &any), MEED_OK);
    assert_false(any);
    assert_int_equal(meed_collective_world(NULL), 1);
    assert_int_equal(meed_collective_fail(NULL, MEED_IO), MEED_IO);
}

/* ---- who does not come, who goes ---------------------------------------------------------------
 */

static int comes_late(int32_t rank, int32_t world, const char *key)
{
    /* Each rank in turn, rank 0 last but one: those before it wait for the file. */
    meed_clock_sleep_ms(rank == 0 ? 300 : rank == 1 ? 500 : 0);
    return small_things(rank, world, key);
}

static void late_ranks_are_waited_for(void **state)
{
    (void)state;
    ranks_run(comes_late, 3, "late", 60);
}

static int never_comes(int32_t rank, int32_t world, const char *key)
{
    struct meed_rendezvous place = place_of(rank, world, key);
    struct meed_collective *collective = NULL;
    place.patience_ms = 300;
    if (rank == 2) {
        return 0;
    }
    CHECK(meed_collective_open(&place, &collective) == MEED_TIMEOUT);
    CHECK(!collective && strstr(meed_last_error(), "rank 2 of 3 did not come within"));
    return 0;
}

static int no_rank_0(int32_t rank, int32_t world, const char *key)
{
    struct meed_rendezvous place = place_of(rank, world, key);
    struct meed_collective *collective = NULL;
    place.patience_ms = 200;
    if (rank == 0) {
        return 0;
    }
    CHECK(meed_collective_open(&place, &collective) == MEED_TIMEOUT);
    CHECK(strstr(meed_last_error(), "rank 1 of 2 found no rank 0 within"));
    CHECK(strstr(meed_last_error(), "rendezvous-nobody is not there"));
    return 0;
}

static void a_rank_that_never_comes_is_named(void **state)
{
    (void)state;
    ranks_run(never_comes, 3, "never", 60);
    ranks_run(no_rank_0, 2, "nobody", 60);
}

/* The rank that goes is the last character of the key. */
static int goes_by_itself(int32_t rank, int32_t world, const char *key)
{
    struct meed_rendezvous place = place_of(rank, world, key);
    struct meed_collective *collective = NULL;
    int32_t lost = key[strlen(key) - 1] - '0', all[MAX_RANKS];
    char want[64];
    snprintf(want, sizeof want, "rank %d of %d: no room for thirteen", lost, world);
    CHECK(meed_collective_open(&place, &collective) == MEED_OK);
    CHECK(meed_collective_gather(collective, &rank, sizeof rank, all) == MEED_OK);
    if (rank == lost) {
        enum meed_status st = MEED_FAIL(MEED_DEVICE_NOMEM, "no room for thirteen");
        CHECK(meed_collective_fail(collective, st) == MEED_DEVICE_NOMEM);
        CHECK(meed_collective_fail(collective, st) == MEED_DEVICE_NOMEM); /* once is enough */
    } else {
        enum meed_status st = meed_collective_gather(collective, &rank, sizeof rank, all);
        CHECK(st == MEED_DEVICE_NOMEM);
        CHECK(strcmp(meed_last_error(), want) == 0);
        CHECK(meed_collective_fail(collective, st) == MEED_DEVICE_NOMEM);
    }
    meed_collective_close(collective);
    return 0;
}

static int is_killed(int32_t rank, int32_t world, const char *key)
{
    struct meed_rendezvous place = place_of(rank, world, key);
    struct meed_collective *collective = NULL;
    int32_t lost = key[strlen(key) - 1] - '0', all[MAX_RANKS];
    char want[64];
    snprintf(want, sizeof want, "rank %d of %d has gone without a word", lost, world);
    CHECK(meed_collective_open(&place, &collective) == MEED_OK);
    if (rank == lost) {
        _exit(0); /* nothing is closed in order, as after SIGKILL */
    }
    CHECK(meed_collective_gather(collective, &rank, sizeof rank, all) == MEED_RPC);
    CHECK(strstr(meed_last_error(), want));
    meed_collective_close(collective);
    return 0;
}

static void a_rank_that_goes_takes_the_others_along(void **state)
{
    (void)state;
    char key[32];
    for (int lost = 0; lost < 3; lost++) {
        snprintf(key, sizeof key, "fails-%d", lost);
        ranks_run(goes_by_itself, 3, key, 60);
        snprintf(key, sizeof key, "dies-%d", lost);
        ranks_run(is_killed, 3, key, 60);
    }
}

/* ---- stale files, strangers ---------------------------------------------------------------------
 */

static void write_file(const char *key, const char *said_key, const char *port, mode_t mode)
{
    char path[256], text[512];
    snprintf(path, sizeof path, "%s/rendezvous-%s", scratch, key);
    int length = snprintf(text, sizeof text,
                          "meed-rendezvous 1\nkey %s\naddress 127.0.0.1 %s\ntoken %064d\n",
                          said_key, port, 7);
    assert_int_equal(meed_file_write_private(path, text, (size_t)length), MEED_OK);
    assert_int_equal(chmod(path, mode), 0);
}

/* A listener of somebody else, on a port that a stale file names. */
static int stranger_listens(char port[8])
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    snprintf(port, 8, "%d", ntohs(address.sin_port));
    return listener;
}

static void stale_files_are_passed_over(void **state)
{
    (void)state;
    char port[8];
    int listener = stranger_listens(port);
    close(listener); /* nobody listens there any more */
    write_file("stale", "stale", port, 0600);
    ranks_run(comes_late, 3, "stale", 60);
    write_file("other", "another-job", port, 0600);
    ranks_run(comes_late, 2, "other", 60);
    write_file("bad", "bad\nkey", "x", 0600);
    ranks_run(comes_late, 2, "bad", 60);
}

static int refuses_to_read(int32_t rank, int32_t world, const char *key)
{
    struct meed_rendezvous place = place_of(rank, world, key);
    struct meed_collective *collective = NULL;
    place.patience_ms = 100;
    if (rank == 0) {
        return 0;
    }
    CHECK(meed_collective_open(&place, &collective) == MEED_TIMEOUT);
    CHECK(strstr(meed_last_error(), "others may read it"));
    return 0;
}

static void a_file_that_others_may_read_is_not_trusted(void **state)
{
    (void)state;
    write_file("open", "open", "1", 0644);
    ranks_run(refuses_to_read, 2, "open", 60);
}

/* Where the file of `key` points, once it is there. */
static int dial_as_stranger(const char *key)
{
    char path[256], host[64], port[8];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    snprintf(path, sizeof path, "%s/rendezvous-%s", scratch, key);
    while (access(path, F_OK) != 0) {
        meed_clock_sleep_ms(5);
    }
    char *text = scratch_read(path, NULL);
    int found = sscanf(text, "meed-rendezvous 1\nkey %*s\naddress %63s %7s", host, port);
    free(text);
    address.sin_port = htons((uint16_t)strtol(port, NULL, 10));
    inet_pton(AF_INET, host, &address.sin_addr);
    if (found != 2 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int meets_a_stranger(int32_t rank, int32_t world, const char *key)
{
    if (rank == 1) {
        struct stat info;
        char path[256], answer[256];
        struct { /* a caller that knows everything but the token */
            uint64_t magic;
            int32_t world, rank;
            uint8_t rest[64];
        } hello = {0x4D45454452414E4Bu, world, 1, {1, 2, 3}};
        int fd = dial_as_stranger(key);
        CHECK(fd >= 0);
        snprintf(path, sizeof path, "%s/rendezvous-%s", scratch, key);
        CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
        CHECK(recv(fd, answer, 32, MSG_WAITALL) == 32);
        CHECK(send(fd, &hello, sizeof hello, 0) == sizeof hello);
        CHECK(recv(fd, answer, sizeof answer, 0) <= 0); /* shown the door */
        close(fd);
    }
    return small_things(rank, world, key);
}

static int is_refused(int32_t rank, int32_t world, const char *key)
{
    struct meed_rendezvous place = place_of(rank, world, key);
    struct meed_collective *collective = NULL;
    place.patience_ms = 200;
    CHECK(meed_collective_open(&place, &collective) == MEED_TIMEOUT);
    CHECK(strstr(meed_last_error(), "does not take this process for rank 1 of 2"));
    return 0;
}

/* Plays rank 0 without the token: one nonce, then whatever comes, then a wrong proof. */
static void a_listener_without_the_token_is_left(void **state)
{
    (void)state;
    char port[8], junk[256] = {0};
    int listener = stranger_listens(port), how = 0;
    write_file("false", "false", port, 0600);
    fflush(NULL);
    pid_t rank_1 = fork();
    if (rank_1 == 0) {
        alarm(60);
        _exit(is_refused(1, 2, "false"));
    }
    while (waitpid(rank_1, &how, WNOHANG) == 0) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        fcntl(listener, F_SETFL, O_NONBLOCK);
        if (fd >= 0) {
            fcntl(fd, F_SETFL, 0);
            assert_int_equal(send(fd, junk, 32, MSG_NOSIGNAL), 32);
            assert_true(recv(fd, junk, 80, MSG_WAITALL) > 0);
            send(fd, junk, 32, MSG_NOSIGNAL);
            close(fd);
        }
        meed_clock_sleep_ms(5);
    }
    close(listener);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

static void strangers_stay_outside(void **state)
{
    (void)state;
    ranks_run(meets_a_stranger, 3, "stranger", 60);
}

static void impossible_places_are_refused(void **state)
{
    (void)state;
    struct meed_collective *collective = NULL;
    struct meed_rendezvous place = place_of(2, 2, "key");
    assert_int_equal(meed_collective_open(&place, &collective), MEED_ARG);
    place = place_of(0, MEED_RENDEZVOUS_MAX_RANKS + 1, "key");
    assert_int_equal(meed_collective_open(&place, &collective), MEED_ARG);
    place = place_of(0, 1, "a/b");
    assert_int_equal(meed_collective_open(&place, &collective), MEED_ARG);
    place = place_of(0, 1, "");
    assert_int_equal(meed_collective_open(&place, &collective), MEED_ARG);
    assert_null(collective);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_in_rank_order),
        cmocka_unit_test(ranks_tell_each_other_small_things),
        cmocka_unit_test(late_ranks_are_waited_for),
        cmocka_unit_test(a_rank_that_never_comes_is_named),
        cmocka_unit_test(a_rank_that_goes_takes_the_others_along),
        cmocka_unit_test(stale_files_are_passed_over),
        cmocka_unit_test(a_file_that_others_may_read_is_not_trusted),
        cmocka_unit_test(strangers_stay_outside),
        cmocka_unit_test(a_listener_without_the_token_is_left),
        cmocka_unit_test(impossible_places_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
