/* See reader.h. */
#include "report/reader.h"

#include <string.h>
#include <sys/stat.h>
#include "base/file.h"
#include "report/read_kinds.h"

static enum meed_status read_file(const char *path, struct meed_run_record *record)
{
    enum meed_status st = MEED_OK;
    json_t *root = NULL;
    MEED_TRY(meed_read_json_file(path, &root));
    const char *schema = json_string_value(json_object_get(root, "schema"));
    if (schema && strcmp(schema, "meed.simulation.cell/1") == 0) {
        MEED_TRY_OUT(meed_read_simulation(path, root, record));
    } else if (schema && strcmp(schema, "meed.simulation/1") == 0) {
        MEED_TRY_OUT(meed_read_experiment(path, root, record));
    } else if (schema && strcmp(schema, "meed.audit/1") == 0) {
        MEED_TRY_OUT(meed_read_audit(path, root, record));
    } else if (json_object_get(root, "rounds")) {
        MEED_TRY_OUT(meed_read_federation(path, root, record));
    } else if (json_object_get(root, "coalitions")) {
        MEED_TRY_OUT(meed_read_valuation(path, root, record));
    } else {
        st = MEED_FAIL(MEED_FORMAT,
                       "%s: neither \"rounds\" nor \"coalitions\"; a report is made from the JSON "
                       "of `meed up`, `meed value`, `meed simulate` or `meed audit`",
                       path);
    }
out:
    json_decref(root);
    return st;
}

static enum meed_status read_folder(const char *folder, struct meed_run_record *record)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_file_join(folder, "simulation.json", path, sizeof path));
    if (meed_file_exists(path)) {
        return read_file(path, record);
    }
    MEED_TRY(meed_file_join(folder, "report.json", path, sizeof path));
    if (!meed_file_exists(path)) {
        return MEED_FAIL(
            MEED_NOT_FOUND,
            "%s: no report.json and no simulation.json; give the --state folder of `meed "
            "up` after a round, the --out folder of `meed simulate`, or a JSON file",
            folder);
    }
    MEED_TRY(read_file(path, record));
    MEED_TRY(meed_file_join(folder, "ledger.jsonl", path, sizeof path));
    return meed_file_exists(path) ? meed_read_ledger(path, record) : MEED_OK;
}

enum meed_status meed_reader_read(const char *path, struct meed_run_record *record)
{
    struct stat info;
    char *title = NULL;
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        length--;
    }
    MEED_TRY(meed_arena_strdup(&record->arena, path, length, &title));
    record->title = title;
    if (stat(path, &info) != 0) {
        return MEED_FAIL(MEED_NOT_FOUND, "%s: no such file or folder", path);
    }
    return S_ISDIR(info.st_mode) ? read_folder(path, record) : read_file(path, record);
}
