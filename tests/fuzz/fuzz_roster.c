/* libFuzzer target: the roster, the file that says who may take part.
 *
 * Whatever is accepted must be a list of clients: ids that are ids, sorted, each found under its
 * number.
 */
#include <string.h>

#include "base/log.h"
#include "server/registry.h"
#include "tests/fuzz/memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory_file file;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct meed_registry *registry = NULL;
    meed_status_discard(meed_log_configure("error"));
    if (meed_registry_load(memory_file_put(&file, data, size), size % 2 == 0, &registry) ==
        MEED_OK) {
        for (int32_t i = 0; i < meed_registry_count(registry); i++) {
            const char *id = meed_registry_id(registry, i);
            if (meed_registry_find(registry, id) != i ||
                (i > 0 && strcmp(meed_registry_id(registry, i - 1), id) >= 0)) {
                fprintf(stderr, "client %d cannot be found\n", (int)i);
                abort();
            }
        }
        meed_registry_refresh(registry);
        meed_registry_destroy(registry);
    }
    return 0;
}
