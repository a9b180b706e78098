/* The house rules over the whole tree, and over planted faults that each rule must see.
 *
 * Goal: a file that breaks the architecture or a cap fails the build's tests with its place and the
 * mend. Method: walk the source folders, run every rule of tests/support/tidy_rules.h; then run
 * each rule on a small text with one fault and demand exactly one report. The exception list is
 * empty.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "tests/support/tidy_rules.h"

static const char *const folders[] = {"base",       "kernels", "engine", "proto",
                                      "evaluation", "server",  "client", "report",
                                      "cli",        "tests",   "bench"};

struct found {
    int reports;
    int files;
};
static struct found found;
static char stems[4096][64];
static char stem_folders[4096][256];
static int stem_count;

static void print_report(void *user, const char *path, int line, const char *message)
{
    (void)user;
    found.reports++;
    printf("%s:%d: %s\n", path, line, message);
}

static void count_report(void *user, const char *path, int line, const char *message)
{
    (void)path;
    (void)line;
    (void)message;
    ++*(int *)user;
}

/* A stem may appear in one folder only (a .c and its .h share it). Twins are one file for each kind
 * of device: kernels/cpu/rope.c and kernels/cuda/rope.cu share a stem on purpose. */
static void check_stem(const char *path)
{
    const char *slash = strrchr(path, '/');
    char stem[64];
    snprintf(stem, sizeof stem, "%s", slash + 1);
    stem[strcspn(stem, ".")] = '\0';
    char folder[256];
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    if (strcmp(folder, "kernels/cpu") == 0 || strcmp(folder, "kernels/cuda") == 0) {
        snprintf(folder, sizeof folder, "kernels/<device>");
    }
    for (int i = 0; i < stem_count; i++) {
        if (strcmp(stems[i], stem) == 0) {
            if (strcmp(stem_folders[i], folder) != 0) {
                found.reports++;
                printf("%s: the stem %s also stands in %s/; rename one\n", path, stem,
                       stem_folders[i]);
            }
            return;
        }
    }
    assert_true(stem_count < 4096);
    snprintf(stems[stem_count], sizeof stems[0], "%s", stem);
    snprintf(stem_folders[stem_count++], sizeof stem_folders[0], "%s", folder);
}

static int visit(const char *full_path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)place;
    const char *dot = strrchr(full_path, '.');
    if (kind != FTW_F || !dot ||
        (strcmp(dot, ".c") && strcmp(dot, ".h") && strcmp(dot, ".cu") && strcmp(dot, ".cuh"))) {
        return 0;
    }
    const char *path = full_path + strlen(MEED_SOURCE_DIR) + 1;
    struct meed_buf text;
    meed_buf_init(&text, 4 << 20);
    assert_int_equal(meed_file_read(full_path, &text), MEED_OK);
    struct tidy_file file = {path, text.data};
    struct tidy_sink sink = {print_report, NULL};
    for (size_t i = 0; i < tidy_rule_count; i++) {
        tidy_rules[i].check(&file, &sink);
    }
    check_stem(path);
    meed_buf_clear(&text);
    found.files++;
    return 0;
}

static void tidy_tree_keeps_the_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < MEED_COUNT(folders); i++) {
        char path[MEED_PATH_BYTES];
        snprintf(path, sizeof path, "%s/%s", MEED_SOURCE_DIR, folders[i]);
        assert_int_equal(nftw(path, visit, 16, FTW_PHYS), 0);
        snprintf(path, sizeof path, "%s/%s/README.md", MEED_SOURCE_DIR, folders[i]);
        if (!meed_file_exists(path)) {
            found.reports++;
            printf("%s/: no README.md\n", folders[i]);
        }
    }
    printf("tidy: %d files, %zu rules, %d reports\n", found.files, tidy_rule_count, found.reports);
    assert_true(found.files > 50);
    assert_int_equal(found.reports, 0);
}

static int reports_on(const char *path, const char *text)
{
    int count = 0;
    struct tidy_file file = {path, text};
    struct tidy_sink sink = {count_report, &count};
    for (size_t i = 0; i < tidy_rule_count; i++) {
        tidy_rules[i].check(&file, &sink);
    }
    return count;
}

static void tidy_rules_see_planted_faults(void **state)
{
    (void)state;
    assert_int_equal(reports_on("base/a.c", "/* Fine. */\nint f(void);\n"), 0);
    assert_int_equal(reports_on("base/a.c", "/* Up. */\n#include \"engine/net.h\"\n"), 1);
    assert_int_equal(reports_on("client/a.c", "/* Sideways. */\n#include \"server/round.h\"\n"), 1);
    assert_int_equal(reports_on("server/a.c", "/* Other's. */\n#include <zstd.h>\n"), 1);
    assert_int_equal(reports_on("server/a.c", "int no_comment;\n"), 1);
    assert_int_equal(reports_on("base/a.h", "/* No guard. */\n"), 1);
    assert_int_equal(reports_on("base/a.h", "/* Guard. */\n#ifndef MEED_BASE_A_H\n#endif\n"), 0);
    assert_int_equal(
        reports_on("cli/a.c", "/* Ban. */\nint f(void)\n{\n    return atoi(\"1\");\n}\n"), 1);
    assert_int_equal(reports_on("cli/a.c", "/* atoi( in a comment. */\nchar *s = \"atoi(\";\n"), 0);
    assert_int_equal(reports_on("cli/a.c", "/* Mark TO"
                                           "DO here. */\n"),
                     1);
}

static void tidy_caps_see_planted_faults(void **state)
{
    (void)state;
    static char text[200000];
    size_t used = (size_t)snprintf(text, sizeof text, "/* Long. */\nint f(void)\n{\n");
    for (int i = 0; i < 75; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "    g();\n");
    }
    snprintf(text + used, sizeof text - used, "}\n");
    assert_int_equal(reports_on("cli/a.c", text), 1);
    assert_int_equal(reports_on("kernels/cpu/a.c", text), 0);
    used = (size_t)snprintf(text, sizeof text, "/* Long file. */\n");
    for (int i = 0; i < 801; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "int a%d;\n", i);
    }
    assert_int_equal(reports_on("cli/a.c", text), 1);
    snprintf(text, sizeof text, "/* Wide: %0120d */\n", 0);
    assert_int_equal(reports_on("cli/a.c", text), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tidy_tree_keeps_the_rules),
        cmocka_unit_test(tidy_rules_see_planted_faults),
        cmocka_unit_test(tidy_caps_see_planted_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
