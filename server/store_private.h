/* What the two halves of the store share: store.c (SQLite) and store_blob.c (files).
 *
 * Nobody else includes this. The lock guards the database handle; files are safe by their names.
 */
#ifndef MEED_SERVER_STORE_PRIVATE_H
#define MEED_SERVER_STORE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include "server/store.h"

struct sqlite3;

struct meed_store {
    pthread_mutex_t lock;
    struct sqlite3 *db;
    atomic_bool writable;
    meed_store_fault_fn fault;
    char folder[MEED_PATH_BYTES - 256]; /* room for the names below it */
    char copy[64];                      /* where the database is, for who only reads; "": folder */
};

/* STATE if another process holds the database (store_blob.c, like all that looks at files). */
MEED_MUST_CHECK enum meed_status meed_store_check_free(const struct meed_store *store);
/* Removes the copy of who only reads. */
void meed_store_drop_copy(const struct meed_store *store);

static inline void meed_store_fault(const struct meed_store *store, const char *point)
{
    if (store->fault) {
        store->fault(point);
    }
}

/* Keeps the writable flag: passes the status of a write through. */
static inline enum meed_status meed_store_note(struct meed_store *store, enum meed_status status)
{
    if (status == MEED_OK || status == MEED_IO) {
        atomic_store(&store->writable, status == MEED_OK);
    }
    return status;
}

#endif
