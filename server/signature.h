/* Ed25519 signatures: the aggregator's word, checkable by anybody for ever.
 *
 * The ledger key is one Ed25519 key pair (RFC 8032) in PEM (PKCS #8), made by `meed provision` or
 * on the first start of a run, readable by its owner only. Ed25519 is deterministic: the same key
 * and message give the same signature, so a resumed run writes the bytes of an undisturbed one.
 * This is the only file of the folder that includes OpenSSL.
 */
#ifndef MEED_SERVER_SIGNATURE_H
#define MEED_SERVER_SIGNATURE_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

enum { MEED_SIGNATURE_KEY_BYTES = 32, MEED_SIGNATURE_SIZE = 64 };

struct meed_signature_key; /* a private key */

/* A fresh key, written to path with mode 0600; STATE if something is there already. */
MEED_MUST_CHECK enum meed_status meed_signature_key_make(const char *path);
/* NOT_FOUND, FORMAT (not an Ed25519 key), DENIED (readable by others). */
MEED_MUST_CHECK enum meed_status meed_signature_key_open(const char *path,
                                                         struct meed_signature_key **key);
void meed_signature_key_close(struct meed_signature_key *key); /* accepts NULL */
void meed_signature_key_public(const struct meed_signature_key *key,
                               uint8_t public_key[MEED_SIGNATURE_KEY_BYTES]);
MEED_MUST_CHECK enum meed_status meed_signature_sign(const struct meed_signature_key *key,
                                                     const void *bytes, size_t size,
                                                     uint8_t signature[MEED_SIGNATURE_SIZE]);
/* INTEGRITY unless the signature is this key's over these bytes. */
MEED_MUST_CHECK enum meed_status
meed_signature_verify(const uint8_t public_key[MEED_SIGNATURE_KEY_BYTES], const void *bytes,
                      size_t size, const uint8_t signature[MEED_SIGNATURE_SIZE]);

MEED_END_C
#endif
