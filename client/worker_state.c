/* See worker_state.h. */
#include "client/worker_state.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "base/parse.h"
#include "proto/codec.h"

enum meed_status meed_worker_state_open(const char *folder, char run_id[MEED_LIMIT_ID_BYTES])
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct meed_buf text;
    meed_buf_init(&text, MEED_LIMIT_ID_BYTES);
    MEED_TRY_OUT(meed_file_make_folder(folder));
    MEED_TRY_OUT(meed_file_join(folder, "run", path, sizeof path));
    run_id[0] = '\0';
    if (!meed_file_exists(path)) {
        goto out;
    }
    MEED_TRY_OUT(meed_file_read(path, &text));
    if (text.size == 0 || text.size >= MEED_LIMIT_ID_BYTES || !meed_codec_id_valid(text.data)) {
        st = MEED_FAIL(MEED_FORMAT, "%.512s holds no run id; use another state folder", path);
        goto out;
    }
    memcpy(run_id, text.data, text.size + 1);
out:
    meed_buf_clear(&text);
    return st;
}

enum meed_status meed_worker_state_set_run(const char *folder, const char *run_id)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_file_join(folder, "run", path, sizeof path));
    return meed_file_write_atomic(path, run_id, strlen(run_id));
}

static enum meed_status round_folder(const char *folder, int32_t round, char path[MEED_PATH_BYTES])
{
    char name[32];
    snprintf(name, sizeof name, "round-%06d", round);
    return meed_file_join(folder, name, path, MEED_PATH_BYTES);
}

static enum meed_status file_path(const char *folder, int32_t round, const char *name,
                                  char path[MEED_PATH_BYTES])
{
    char inner[MEED_PATH_BYTES];
    MEED_TRY(round_folder(folder, round, inner));
    return meed_file_join(inner, name, path, MEED_PATH_BYTES);
}

enum meed_status meed_worker_state_path(const char *folder, int32_t round, const char *name,
                                        char path[MEED_PATH_BYTES])
{
    MEED_TRY(round_folder(folder, round, path));
    MEED_TRY(meed_file_make_folder(path));
    return file_path(folder, round, name, path);
}

bool meed_worker_state_has(const char *folder, int32_t round, const char *name)
{
    char path[MEED_PATH_BYTES];
    return file_path(folder, round, name, path) == MEED_OK && meed_file_exists(path);
}

enum meed_status meed_worker_state_mark(const char *folder, int32_t round, const char *name)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_worker_state_path(folder, round, name, path));
    return meed_file_write_atomic(path, "", 0);
}

/* Round of a folder's name; -1 for other names. */
static int32_t round_of(const char *name)
{
    static const char prefix[] = "round-";
    int64_t round = -1;
    if (strncmp(name, prefix, strlen(prefix)) != 0) {
        return -1;
    }
    const char *digits = name + strlen(prefix);
    while (digits[0] == '0' && digits[1] != '\0') {
        digits++;
    }
    return meed_parse_i64(name, digits, 0, MEED_LIMIT_ROUNDS, &round) == MEED_OK ? (int32_t)round
                                                                                 : -1;
}

int32_t meed_worker_state_newest(const char *folder, int32_t before, const char *name)
{
    int32_t newest = -1;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        int32_t round = round_of(entry->d_name);
        if (round > newest && round < before && meed_worker_state_has(folder, round, name)) {
            newest = round;
        }
    }
    if (entries) {
        closedir(entries);
    }
    return newest;
}

static void remove_file(const char *folder, int32_t round, const char *name)
{
    char path[MEED_PATH_BYTES];
    if (file_path(folder, round, name, path) == MEED_OK && unlink(path) != 0 && errno != ENOENT) {
        MEED_LOG_WARN("client", "cannot remove %s: %s", path, strerror(errno));
    }
}

void meed_worker_state_clean(const char *folder, int32_t round)
{
    static const char *const large[] = {
        MEED_WORKER_ADAPTER, MEED_WORKER_RESIDUAL, MEED_WORKER_CONTROL, MEED_WORKER_PRIVATE,
        MEED_WORKER_UPDATE,  MEED_WORKER_TRAIN,    "private.ckpt",      "synthetic.ckpt"};
    for (size_t i = MEED_COUNT(large) - 3; i < MEED_COUNT(large); i++) {
        remove_file(folder, round, large[i]);
    }
    for (size_t i = 0; i < MEED_COUNT(large); i++) {
        int32_t older = round;
        while ((older = meed_worker_state_newest(folder, older, large[i])) >= 0) {
            remove_file(folder, older, large[i]);
        }
    }
}
