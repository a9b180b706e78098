/* The public key of a ledger: 64 hex digits in a file, beside the ledger or handed over. */
#ifndef MEED_CLI_LEDGER_KEY_H
#define MEED_CLI_LEDGER_KEY_H

#include "server/signature.h"

/* path NULL: ledger.pub in the folder. FORMAT if it is no key. */
MEED_MUST_CHECK enum meed_status meed_ledger_key_read(const char *path, const char *folder,
                                                      uint8_t key[MEED_SIGNATURE_KEY_BYTES]);

#endif
