/* See ledger_key.h. */
#include "cli/ledger_key.h"

#include <string.h>
#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"

enum meed_status meed_ledger_key_read(const char *path, const char *folder,
                                      uint8_t key[MEED_SIGNATURE_KEY_BYTES])
{
    enum meed_status st = MEED_OK;
    char beside[MEED_PATH_BYTES];
    struct meed_buf text;
    meed_buf_init(&text, 4096);
    if (!path) {
        MEED_TRY(meed_file_join(folder, "ledger.pub", beside, sizeof beside));
        path = beside;
    }
    MEED_TRY_OUT(meed_file_read(path, &text));
    if (text.data) {
        text.data[strcspn(text.data, "\r\n \t")] = '\0';
    }
    if (!text.data || meed_sha256_from_hex(text.data, key) != MEED_OK) {
        st = MEED_FAIL(MEED_FORMAT, "%s is not a public key: 64 hex digits", path);
    }
out:
    meed_buf_clear(&text);
    return st;
}
