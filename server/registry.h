/* The roster: who may take part, and who a caller is. Asked on every call.
 *
 * A roster file is JSON, written by `meed provision`:
 *
 *   {"meed_roster": 1, "clients": [
 *     {"id": "clinic", "certificate": "3f0a… 64 hex digits", "name": "City clinic"},
 *     {"id": "mixer"},
 *     {"id": "idle", "certificate": "77c1…", "revoked": true}]}
 *
 * The id is the path of the certificate's URI SAN meed:client/<id>; the hash is the SHA-256 of the
 * certificate in DER, so that a stolen CA alone does not make a client; without one the CA-signed
 * SAN suffices. gRPC offers no revocation list: revocation is this check, and the file is read
 * again when it changes, so "revoked" needs no restart. The set of ids is part of the run and
 * cannot change under it. Unknown keys are errors.
 *
 * Without TLS (`insecure`) the id is what the caller claims; the log says so once.
 */
#ifndef MEED_SERVER_REGISTRY_H
#define MEED_SERVER_REGISTRY_H

#include "base/buf.h"
#include "base/hash.h"
#include "proto/rpc.h"

MEED_BEGIN_C

struct meed_registry;

enum { MEED_REGISTRY_NAME_BYTES = 96 };

struct meed_registry_client {
    char id[MEED_LIMIT_ID_BYTES];
    bool pinned;
    bool revoked;
    uint8_t certificate_sha256[MEED_SHA256_BYTES];
    char name[MEED_REGISTRY_NAME_BYTES]; /* for people */
};

/* From ids, nothing pinned; sorted. CONFIG names an id that is doubled or not an id. */
MEED_MUST_CHECK enum meed_status meed_registry_create(const char *const *ids, int32_t count,
                                                      bool insecure,
                                                      struct meed_registry **registry);
/* FORMAT "FILE: …" with the line or the client. */
MEED_MUST_CHECK enum meed_status meed_registry_load(const char *path, bool insecure,
                                                    struct meed_registry **registry);
void meed_registry_destroy(struct meed_registry *registry); /* accepts NULL */
/* Reads the file again if it changed. A file that does not fit the run is left aside with a WARN.
 */
void meed_registry_refresh(struct meed_registry *registry);

/* Clients are numbered in the order of their ids. */
int32_t meed_registry_count(const struct meed_registry *registry);
const char *meed_registry_id(const struct meed_registry *registry, int32_t client);
int32_t meed_registry_find(const struct meed_registry *registry, const char *id); /* -1: none */
/* Who calls. UNAUTHENTICATED without a certificate, DENIED for a stranger, another certificate than
 * the pinned one, or a revoked client. */
MEED_MUST_CHECK enum meed_status meed_registry_identify(struct meed_registry *registry,
                                                        const struct meed_rpc_peer *peer,
                                                        int32_t *client);

/* The text of a roster file. */
MEED_MUST_CHECK enum meed_status meed_registry_format(const struct meed_registry_client *clients,
                                                      int32_t count, struct meed_buf *text);

MEED_END_C
#endif
