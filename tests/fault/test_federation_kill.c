/* kill -9 at every named point of a run, then go on: the same bytes as undisturbed.
 *
 * Goal: whatever instant the server dies at, a restart ends with the ledger and the adapter of a
 * run that never died. Method: each run is a forked child with its server and its clients; the
 * fault hook raises SIGKILL at the n-th passage of a point; the child is started again on the same
 * folder until it ends; files are compared byte by byte. One run dies at every point in turn, and
 * one at random instants by the clock.
 */
#include "tests/loop/federation_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include "server/server_optimiser.h"

static const char *fatal_point;
static int fatal_passage; /* which passage of it kills; 0: none */
static char key_path[256];
static bool stateful; /* the merge has moments to remember and is repaired */

static void die(const char *point)
{
    if (fatal_point && strcmp(point, fatal_point) == 0 && --fatal_passage == 0) {
        raise(SIGKILL);
    }
}

/* One life: server and clients until the run is over. Never returns. */
static void live(const char *folder, const char *point, int passage)
{
    static struct fed fed;
    fatal_point = point;
    fatal_passage = passage;
    fed_init(&fed, 4);
    rmdir(fed.folder);
    snprintf(fed.folder, sizeof fed.folder, "%s", folder);
    fed.ledger_key = key_path;
    fed.config.quorum = 3;
    fed.fault = die;
    if (stateful) {
        fed.config.aggregation = MEED_AGGREGATION_FEDAVG;
        fed.config.server = meed_server_optimiser_defaults(MEED_SERVER_ADAM);
        fed.config.weighting = MEED_WEIGHTING_CONTRIBUTION;
        fed.aligned = true;
        fed.config.align.repair_steps = 2;
        fed.config.align.repair_lr = 0.1;
    }
    fed_start(&fed);
    for (int32_t round = 1; round <= 3; round++) {
        for (int32_t i = 0; i < 4; i++) {
            if (fed_play(&fed, i, round, i == 2 ? 0.0 : 0.1) != MEED_OK) {
                fprintf(stderr, "client %d round %d: %s\n", i, round, meed_last_error());
                _exit(2);
            }
        }
    }
    fed_collect(&fed, 3);
    enum meed_status st = fed_stop(&fed, true);
    _exit(st == MEED_OK ? 0 : 3);
}

/* Runs lives on the folder until one ends by itself; the first may die at the point. Returns how
 * many were killed. */
static int run(const char *folder, const char *point, int passage)
{
    for (int deaths = 0; deaths < 50; deaths++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            live(folder, deaths == 0 ? point : NULL, passage);
        }
        int how = 0;
        assert_int_equal(waitpid(child, &how, 0), child);
        if (WIFEXITED(how)) {
            assert_int_equal(WEXITSTATUS(how), 0);
            return deaths;
        }
        assert_int_equal(WTERMSIG(how), SIGKILL);
    }
    fail();
    return -1;
}

static char undisturbed[128];

static int setup(void **state)
{
    (void)state;
    fed_folder(undisturbed);
    snprintf(key_path, sizeof key_path, "%s.key", undisturbed);
    assert_int_equal(meed_signature_key_make(key_path), MEED_OK);
    assert_int_equal(run(undisturbed, NULL, 0), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fed_remove(undisturbed);
    unlink(key_path);
    return 0;
}

static void check_same(const char *folder)
{
    assert_true(fed_same_file(undisturbed, folder, "ledger.jsonl"));
    assert_true(fed_same_file(undisturbed, folder, "adapter/adapter_model.safetensors"));
    assert_true(fed_same_file(undisturbed, folder, "adapter/adapter_config.json"));
}

static void federation_kill_at_every_point_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *point;
        int passage;
    } cases[] = {
        {"progress", 1},          {"progress.written", 1},
        {"partial.whole", 3},     {"partial.adopted", 2},
        {"update.committed", 1},  {"update.committed", 4},
        {"update.committed", 7},  {"screen", 1},
        {"screen.stored", 2},     {"value", 1},
        {"value.stored", 2},      {"settle", 1},
        {"settle.blob", 2},       {"settle.ledger", 1},
        {"settle.ledger", 3},     {"publish", 1},
        {"publish.receipts", 2},  {"publish.final", 1},
        {"publish.report", 3},    {"progress", 2},
        {"progress.written", 3},  {"progress.written", 4},
        {"progress.written", 5},  {"progress.written", 6},
        {"progress.written", 11},
    };
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        char folder[128];
        fed_folder(folder);
        if (run(folder, cases[i].point, cases[i].passage) != 1) {
            print_error("nobody passed %s %d times\n", cases[i].point, cases[i].passage);
            fail();
        }
        check_same(folder);
        fed_remove(folder);
    }
}

/* A merge that remembers: moments, reputations and repair are found again. */
static void federation_kill_finds_the_servers_memory(void **state)
{
    (void)state;
    static const struct {
        const char *point;
        int passage;
    } cases[] = {{"settle", 1}, {"settle.blob", 2}, {"settle.ledger", 2}, {"publish", 3}};
    char folder[128], calm[128];
    stateful = true;
    fed_folder(calm);
    assert_int_equal(run(calm, NULL, 0), 0);
    assert_false(fed_same_file(undisturbed, calm, "adapter/adapter_model.safetensors"));
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        fed_folder(folder);
        assert_int_equal(run(folder, cases[i].point, cases[i].passage), 1);
        assert_true(fed_same_file(calm, folder, "ledger.jsonl"));
        assert_true(fed_same_file(calm, folder, "adapter/adapter_model.safetensors"));
        fed_remove(folder);
    }
    fed_remove(calm);
    stateful = false;
}

/* Death by the clock, again and again in one run. */
static void federation_kill_at_any_instant_changes_nothing(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(3, "kill", 0);
    int deaths = 0;
    for (int life = 0; life < 6; life++) {
        char folder[128];
        fed_folder(folder);
        for (int kills = 0; kills < 6; kills++) {
            fflush(NULL);
            pid_t child = fork();
            if (child == 0) {
                live(folder, NULL, 0);
            }
            usleep(1000 + (useconds_t)meed_rng_below(&rng, 30000));
            kill(child, SIGKILL);
            int how = 0;
            assert_int_equal(waitpid(child, &how, 0), child);
            deaths += WIFSIGNALED(how);
        }
        run(folder, NULL, 0);
        check_same(folder);
        fed_remove(folder);
    }
    print_message("killed %d times\n", deaths);
    assert_true(deaths > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(federation_kill_at_every_point_changes_nothing),
        cmocka_unit_test(federation_kill_finds_the_servers_memory),
        cmocka_unit_test(federation_kill_at_any_instant_changes_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
