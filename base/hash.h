/* SHA-256: the name of every byte string that Meed keeps or pays for.
 *
 * Models, updates, benchmarks, blobs and ledger entries are identified by this hash and no other.
 * OpenSSL computes it (with the processor's SHA instructions), and hash.c is the only file of base/
 * that includes a header from outside libc: every folder needs the hash, so it lives on the ground
 * floor.
 */
#ifndef MEED_BASE_HASH_H
#define MEED_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

enum { MEED_SHA256_BYTES = 32, MEED_SHA256_HEX_BYTES = 65 };

struct meed_sha256; /* opaque running hash */

/* One-shot. */
void meed_sha256(const void *bytes, size_t size, uint8_t digest[MEED_SHA256_BYTES]);
/* Running: create, update…, final (which destroys). */
MEED_MUST_CHECK enum meed_status meed_sha256_create(struct meed_sha256 **hash);
void meed_sha256_update(struct meed_sha256 *hash, const void *bytes, size_t size);
void meed_sha256_final(struct meed_sha256 *hash, uint8_t digest[MEED_SHA256_BYTES]);
void meed_sha256_destroy(struct meed_sha256 *hash); /* accepts NULL */
/* Lower-case hex with NUL. */
void meed_sha256_hex(const uint8_t digest[MEED_SHA256_BYTES], char hex[MEED_SHA256_HEX_BYTES]);
/* FORMAT unless text is 64 lower-case hex digits. */
MEED_MUST_CHECK enum meed_status meed_sha256_from_hex(const char *text,
                                                      uint8_t digest[MEED_SHA256_BYTES]);
MEED_MUST_CHECK enum meed_status meed_sha256_file(const char *path,
                                                  uint8_t digest[MEED_SHA256_BYTES]);

MEED_END_C
#endif
