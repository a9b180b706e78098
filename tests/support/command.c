/* See command.h. */
#include "tests/support/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"

extern char **environ;

enum { MAX_WORDS = 64, MAX_LINE = 8192 };

/* ---- processes ------------------------------------------------------------------------------- */

static pid_t spawn(const char *line, int in, int out, int err)
{
    static char program[] = MEED_BINARY_DIR "/meed";
    char copy[MAX_LINE];
    char *words[MAX_WORDS] = {program};
    int count = 1;
    assert_true(strlen(line) < sizeof copy);
    memcpy(copy, line, strlen(line) + 1);
    for (char *at = copy; *at;) {
        char *end = at + strcspn(at, " ");
        bool more = *end != '\0';
        *end = '\0';
        if (end > at) {
            assert_true(count < MAX_WORDS - 1);
            words[count++] = at;
        }
        at = end + (more ? 1 : 0);
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
    pid_t process = 0;
    int failed = posix_spawn(&process, program, &actions, NULL, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed) {
        fail_msg("cannot start %s: %s", program, strerror(failed));
    }
    return process;
}

/* The exit code; -1 when time is up, and the process is gone then too. */
static int wait_for(pid_t process, int limit_ms)
{
    int how = 0;
    for (int waited_ms = 0; waitpid(process, &how, WNOHANG) == 0; waited_ms += 2) {
        if (waited_ms >= limit_ms) {
            kill(process, SIGKILL);
            waitpid(process, &how, 0);
            return -1;
        }
        meed_clock_sleep_ms(2);
    }
    return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
}

static char *read_all(FILE *file, size_t *size)
{
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long bytes = ftell(file);
    rewind(file);
    char *text = malloc((size_t)bytes + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)bytes, file), bytes);
    text[bytes] = '\0';
    if (size) {
        *size = (size_t)bytes;
    }
    return text;
}

void command_run(struct command_result *result, const char *input, const char *line)
{
    FILE *in = tmpfile(), *out = tmpfile(), *err = tmpfile();
    assert_true(in && out && err);
    if (input) {
        assert_true(fputs(input, in) >= 0 && fflush(in) == 0);
        rewind(in);
    }
    pid_t process = spawn(line, fileno(in), fileno(out), fileno(err));
    result->code = wait_for(process, COMMAND_TIMEOUT_MS);
    result->out = read_all(out, &result->out_bytes);
    result->err = read_all(err, NULL);
    fclose(in);
    fclose(out);
    fclose(err);
    if (result->code < 0) {
        fail_msg("meed %s: still running after %d s\n%s", line, COMMAND_TIMEOUT_MS / 1000,
                 result->err);
    }
}

void command_clear(struct command_result *result)
{
    free(result->out);
    free(result->err);
    *result = (struct command_result){0, NULL, NULL, 0};
}

void command_good(struct command_result *result, const char *format, ...)
{
    char line[MAX_LINE];
    struct command_result own;
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    command_run(&own, NULL, line);
    if (own.code != 0) {
        fail_msg("meed %s: exit code %d\n%s", line, own.code, own.err);
    }
    if (result) {
        *result = own;
    } else {
        command_clear(&own);
    }
}

void command_refused(const struct command_result *result, enum meed_status status,
                     const char *const *says)
{
    const char *sentence = NULL;
    int sentences = 0;
    for (const char *at = result->err; *at; at += strcspn(at, "\n") + 1) {
        if (strncmp(at, "meed", 4) == 0) { /* "meed train: …" would be argp's own */
            sentence = at;
            sentences++;
        }
        if (at[strcspn(at, "\n")] == '\0') {
            break;
        }
    }
    char start[256];
    snprintf(start, sizeof start, "meed: %s: ", meed_status_sentence(status));
    bool last = sentence && sentence[strcspn(sentence, "\n")] == '\n' &&
                sentence[strcspn(sentence, "\n") + 1] == '\0';
    if (result->code != meed_status_exit_code(status) || sentences != 1 || !last ||
        strncmp(sentence, start, strlen(start)) != 0) {
        fail_msg("exit code %d and %d sentences, expected %d (%s) and one\n%s", result->code,
                 sentences, meed_status_exit_code(status), meed_status_name(status), result->err);
    }
    print_message("  %d %s", result->code, sentence);
    for (; *says; says++) {
        if (!strstr(sentence, *says)) {
            fail_msg("the sentence lacks \"%s\": %s", *says, sentence);
        }
    }
}

pid_t command_start(const char *log, const char *line)
{
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    assert_true(in >= 0 && out >= 0);
    pid_t process = spawn(line, in, out, out);
    close(in);
    close(out);
    return process;
}

void command_wait_for(const char *log, const char *text)
{
    for (int waited_ms = 0; waited_ms < COMMAND_TIMEOUT_MS; waited_ms += 10) {
        char *all = scratch_read(log, NULL);
        bool there = strstr(all, text) != NULL;
        free(all);
        if (there) {
            return;
        }
        meed_clock_sleep_ms(10);
    }
    fail_msg("\"%s\" never came in %s", text, log);
}

int command_stop(pid_t process)
{
    kill(process, SIGTERM);
    return wait_for(process, COMMAND_TIMEOUT_MS);
}

/* ---- scratch folders ------------------------------------------------------------------------- */

void scratch_make(char folder[SCRATCH_BYTES])
{
    snprintf(folder, SCRATCH_BYTES, "/tmp/meed_command_XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

void scratch_remove(const char *folder)
{
    assert_int_equal(nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void scratch_write(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

char *scratch_read(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        fail_msg("cannot read %s: %s", path, strerror(errno));
    }
    char *text = read_all(file, size);
    fclose(file);
    return text;
}
