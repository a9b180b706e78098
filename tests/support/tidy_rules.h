/* The house rules as functions over text, so that each rule can be tested on a planted fault.
 *
 * A rule reads one source file held in memory and reports "path:line: what, and what to do instead"
 * through a callback. Style checks that are ordinary, tested tests are TigerBeetle's idea; the caps
 * and the banned list come from curl. No rule knows git or the disk; tests/tidy walks the tree.
 */
#ifndef MEED_SUPPORT_TIDY_RULES_H
#define MEED_SUPPORT_TIDY_RULES_H

#include <stddef.h>

struct tidy_file {
    const char *path; /* "kernels/cpu/rmsnorm.c" */
    const char *text; /* NUL-terminated */
};

typedef void (*tidy_report_fn)(void *user, const char *path, int line, const char *message);

struct tidy_sink {
    tidy_report_fn report;
    void *user;
};

void tidy_check_includes(const struct tidy_file *file, const struct tidy_sink *sink);
void tidy_check_third_party(const struct tidy_file *file, const struct tidy_sink *sink);
void tidy_check_length(const struct tidy_file *file, const struct tidy_sink *sink);
void tidy_check_functions(const struct tidy_file *file, const struct tidy_sink *sink);
void tidy_check_guard(const struct tidy_file *file, const struct tidy_sink *sink);
void tidy_check_header_comment(const struct tidy_file *file, const struct tidy_sink *sink);
void tidy_check_banned(const struct tidy_file *file, const struct tidy_sink *sink);

struct tidy_rule {
    const char *name;
    void (*check)(const struct tidy_file *file, const struct tidy_sink *sink);
};
extern const struct tidy_rule tidy_rules[];
extern const size_t tidy_rule_count;

/* Copy of text with comments, strings and character constants blanked (newlines kept); free it. */
char *tidy_blank_literals(const char *text);

#endif
