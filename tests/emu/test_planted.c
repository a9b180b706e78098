/* Every planted fault is seen, in each mode that promises it, and no correct kernel is accused.
 *
 * Goal: a detector that goes blind fails the build. Method: each row of planted.def runs in a child
 * of its own (a sanitizer ends the process it reports on): with its fault, and what the child
 * prints must hold the words of the row, in every mode the row names; without it, and the child
 * must say `right` in every mode. A row without words for a checker is not run under it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/emu/emu.h"
#include "tests/emu/planted.h"

enum when { ALL, EARLY, LATE };
static const struct row {
    const char *name;
    enum when when;
    const char *words[3]; /* by meed_emu_checker() */
    enum planted_outcome (*run)(bool fault);
} rows[] = {
#define PLANTED(name, when, plain, address, thread)                                                \
    {#name, when, {plain, address, thread}, planted_##name},
#include "tests/emu/planted.def"
#undef PLANTED
};
enum { OUTPUT_BYTES = 65536 };
static char self[1024];

/* Runs one row in a child; what it printed, both streams. */
static void child_output(const struct row *row, bool fault, struct meed_emu_mode mode,
                         char output[OUTPUT_BYTES])
{
    char command[1400];
    snprintf(command, sizeof command, "MEED_EMU_SEED=%llu MEED_EMU_COPIES=%s '%s' %s %s 2>&1",
             (unsigned long long)mode.seed, mode.late ? "late" : "early", self, row->name,
             fault ? "fault" : "fine");
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t used = fread(output, 1, OUTPUT_BYTES - 1, pipe);
    output[used] = '\0';
    pclose(pipe);
}

static void planted_row_is_seen(void **state)
{
    const struct row *row = *state;
    const char *words = row->words[meed_emu_checker()];
    struct meed_emu_mode modes[MEED_EMU_MODES];
    int count = meed_emu_mode_list(modes);
    char *output = malloc(OUTPUT_BYTES);
    assert_non_null(output);
    for (int i = 0; i < count && *words; i++) {
        bool promised = row->when == ALL || (row->when == LATE) == modes[i].late;
        child_output(row, false, modes[i], output);
        if (!strstr(output, "verdict: right")) {
            fail_msg("%s, seed %llu: the correct kernel is accused:\n%s", row->name,
                     (unsigned long long)modes[i].seed, output);
        }
        if (promised) {
            child_output(row, true, modes[i], output);
            if (!strstr(output, words)) {
                fail_msg("%s, seed %llu, %s copies: \"%s\" is not in:\n%s", row->name,
                         (unsigned long long)modes[i].seed, modes[i].late ? "late" : "early", words,
                         output);
            }
        }
    }
    free(output);
}

static int child_main(const char *name, bool fault)
{
    static const char *const verdicts[] = {"right", "wrong", "failed"};
    struct meed_emu_mode modes[MEED_EMU_MODES];
    if (meed_emu_mode_list(modes) != 1) {
        return 2;
    }
    meed_emu_mode_set(modes[0]);
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        if (strcmp(rows[i].name, name) == 0) {
            printf("verdict: %s\n", verdicts[rows[i].run(fault)]);
            return 0;
        }
    }
    return 2;
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[MEED_COUNT(rows)];
    if (argc == 3) {
        return child_main(argv[1], strcmp(argv[2], "fault") == 0);
    }
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) {
        return 2;
    }
    for (size_t i = 0; i < MEED_COUNT(rows); i++) {
        tests[i] = (struct CMUnitTest){rows[i].name, planted_row_is_seen, NULL, NULL,
                                       (void *)(uintptr_t)&rows[i]};
    }
    return cmocka_run_group_tests_name("planted faults", tests, NULL, NULL);
}
