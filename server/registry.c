/* See registry.h. */
#include "server/registry.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <jansson.h>
#include "base/file.h"
#include "base/log.h"
#include "proto/codec.h"

enum { ROSTER_MAX_BYTES = 4 << 20 };

struct meed_registry {
    pthread_mutex_t lock; /* pins and revocations may be read again while calls come in */
    bool insecure;
    char path[MEED_PATH_BYTES]; /* "": from ids */
    struct timespec changed;
    int32_t count;
    struct meed_registry_client *clients; /* sorted by id */
};

static int by_id(const void *x, const void *y)
{
    const struct meed_registry_client *left = x, *right = y;
    return strcmp(left->id, right->id);
}

/* Takes the list (heap) or frees it. */
static enum meed_status build(struct meed_registry_client *clients, int32_t count, bool insecure,
                              struct meed_registry **registry)
{
    enum meed_status st = MEED_OK;
    struct meed_registry *made = NULL;
    if (count < 1 || count > MEED_LIMIT_CLIENTS) {
        st = MEED_FAIL(MEED_CONFIG, "%d clients; a run has 1 to %d", count, MEED_LIMIT_CLIENTS);
        goto out;
    }
    qsort(clients, (size_t)count, sizeof *clients, by_id);
    for (int32_t i = 0; i < count; i++) {
        if (!meed_codec_id_valid(clients[i].id)) {
            st = MEED_FAIL(MEED_CONFIG,
                           "\"%.64s\" cannot be a client id: 1 to 63 of A-Z a-z 0-9 . "
                           "_ -",
                           clients[i].id);
            goto out;
        }
        if (i > 0 && strcmp(clients[i - 1].id, clients[i].id) == 0) {
            st = MEED_FAIL(MEED_CONFIG, "client %s is named twice", clients[i].id);
            goto out;
        }
    }
    made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        st = MEED_NOMEM;
        goto out;
    }
    pthread_mutex_init(&made->lock, NULL);
    made->insecure = insecure;
    made->count = count;
    made->clients = clients;
    clients = NULL;
    *registry = made;
out:
    meed_heap_free(clients);
    return st;
}

enum meed_status meed_registry_create(const char *const *ids, int32_t count, bool insecure,
                                      struct meed_registry **registry)
{
    struct meed_registry_client *clients =
        meed_heap_alloc((size_t)MEED_MAX(count, 0), sizeof *clients);
    if (!clients) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < count; i++) {
        snprintf(clients[i].id, sizeof clients[i].id, "%s", ids[i]);
        snprintf(clients[i].name, sizeof clients[i].name, "%s", ids[i]);
        if (strlen(ids[i]) >= sizeof clients[i].id) {
            clients[i].id[0] = '\0'; /* too long: refused as no id below */
        }
    }
    return build(clients, count, insecure, registry);
}

/* ---- roster files ---------------------------------------------------------------------------- */

static enum meed_status entry_failed(const char *path, size_t at, const char *what)
{
    return MEED_FAIL(MEED_FORMAT, "%s: client %zu: %s", path, at + 1, what);
}

static enum meed_status parse_entry(const char *path, size_t at, const json_t *entry,
                                    struct meed_registry_client *client)
{
    const char *key = NULL;
    json_t *value = NULL;
    memset(client, 0, sizeof *client);
    json_object_foreach((json_t *)(uintptr_t)entry, key, value)
    {
        const char *text = json_string_value(value);
        if (strcmp(key, "id") == 0 && text && meed_codec_id_valid(text)) {
            snprintf(client->id, sizeof client->id, "%s", text);
        } else if (strcmp(key, "name") == 0 && text) {
            snprintf(client->name, sizeof client->name, "%s", text);
        } else if (strcmp(key, "revoked") == 0 && json_is_boolean(value)) {
            client->revoked = json_is_true(value);
        } else if (strcmp(key, "certificate") == 0 && text &&
                   meed_sha256_from_hex(text, client->certificate_sha256) == MEED_OK) {
            client->pinned = true;
        } else {
            char what[128];
            snprintf(what, sizeof what,
                     "\"%.32s\" is not a key of a roster, or has a value that it cannot have", key);
            return entry_failed(path, at, what);
        }
    }
    if (client->id[0] == '\0') {
        return entry_failed(path, at, "no \"id\"");
    }
    if (client->name[0] == '\0') {
        snprintf(client->name, sizeof client->name, "%s", client->id);
    }
    return MEED_OK;
}

static enum meed_status parse_roster(const char *path, const json_t *root, struct meed_buf *list)
{
    const json_t *clients = json_object_get(root, "clients");
    if (json_integer_value(json_object_get(root, "meed_roster")) != 1 || !json_is_array(clients) ||
        json_object_size(root) != 2) {
        return MEED_FAIL(MEED_FORMAT, "%s: a roster is {\"meed_roster\": 1, \"clients\": […]}",
                         path);
    }
    for (size_t at = 0; at < json_array_size(clients); at++) {
        struct meed_registry_client client;
        MEED_TRY(parse_entry(path, at, json_array_get(clients, at), &client));
        MEED_TRY(meed_buf_append(list, &client, sizeof client));
    }
    return MEED_OK;
}

static enum meed_status read_roster(const char *path, struct meed_registry_client **clients,
                                    int32_t *count, struct timespec *changed)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text, list;
    json_t *root = NULL;
    json_error_t error;
    meed_buf_init(&text, ROSTER_MAX_BYTES);
    meed_buf_init(&list, (size_t)MEED_LIMIT_CLIENTS * sizeof(struct meed_registry_client));
    struct stat info;
    if (stat(path, &info) == 0) {
        *changed = info.st_mtim;
    }
    MEED_TRY_OUT(meed_file_read(path, &text));
    root = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        st = MEED_FAIL(MEED_FORMAT, "%s:%d: not JSON: %.100s", path, error.line, error.text);
        goto out;
    }
    MEED_TRY_OUT(parse_roster(path, root, &list));
    struct meed_registry_client *read = meed_heap_alloc(list.size / sizeof *read, sizeof *read);
    if (!read) {
        st = MEED_NOMEM;
        goto out;
    }
    if (list.size > 0) {
        memcpy(read, list.data, list.size);
    }
    *clients = read;
    *count = (int32_t)(list.size / sizeof *read);
out:
    json_decref(root);
    meed_buf_clear(&text);
    meed_buf_clear(&list);
    return st;
}

enum meed_status meed_registry_load(const char *path, bool insecure,
                                    struct meed_registry **registry)
{
    struct meed_registry_client *clients = NULL;
    int32_t count = 0;
    struct timespec changed = {0, 0};
    struct meed_registry *made = NULL;
    MEED_TRY(read_roster(path, &clients, &count, &changed));
    MEED_TRY(build(clients, count, insecure, &made));
    snprintf(made->path, sizeof made->path, "%s", path);
    made->changed = changed;
    *registry = made;
    return MEED_OK;
}

void meed_registry_destroy(struct meed_registry *registry)
{
    if (registry) {
        pthread_mutex_destroy(&registry->lock);
        meed_heap_free(registry->clients);
        meed_heap_free(registry);
    }
}

static bool same_ids(const struct meed_registry *registry,
                     const struct meed_registry_client *clients, int32_t count)
{
    bool same = count == registry->count;
    for (int32_t i = 0; same && i < count; i++) {
        same = strcmp(registry->clients[i].id, clients[i].id) == 0;
    }
    return same;
}

void meed_registry_refresh(struct meed_registry *registry)
{
    struct stat info;
    struct meed_registry_client *clients = NULL;
    int32_t count = 0;
    if (registry->path[0] == '\0' || stat(registry->path, &info) != 0 ||
        (info.st_mtim.tv_sec == registry->changed.tv_sec &&
         info.st_mtim.tv_nsec == registry->changed.tv_nsec)) {
        return;
    }
    if (read_roster(registry->path, &clients, &count, &registry->changed) != MEED_OK) {
        registry->changed = info.st_mtim;
        MEED_LOG_WARN("server", "the changed roster is left aside: %s", meed_last_error());
        return;
    }
    qsort(clients, (size_t)count, sizeof *clients, by_id);
    pthread_mutex_lock(&registry->lock);
    if (same_ids(registry, clients, count)) {
        /* Copied, not swapped: meed_registry_id hands out pointers into the list. */
        for (int32_t i = 0; i < count; i++) {
            registry->clients[i].pinned = clients[i].pinned;
            registry->clients[i].revoked = clients[i].revoked;
            memcpy(registry->clients[i].certificate_sha256, clients[i].certificate_sha256,
                   MEED_SHA256_BYTES);
        }
        MEED_LOG_INFO("server", "the roster was read again (clients=%d)", count);
    } else {
        MEED_LOG_WARN("server", "the changed roster is left aside: its ids are not those of the "
                                "run; mark a client \"revoked\" instead of removing it");
    }
    pthread_mutex_unlock(&registry->lock);
    meed_heap_free(clients);
}

/* ---- who ------------------------------------------------------------------------------------- */

int32_t meed_registry_count(const struct meed_registry *registry)
{
    return registry->count;
}

/* Ids are written once, by build: reading them needs no lock. */
const char *meed_registry_id(const struct meed_registry *registry, int32_t client)
{
    return registry->clients[client].id;
}

int32_t meed_registry_find(const struct meed_registry *registry, const char *id)
{
    int32_t low = 0, high = registry->count - 1;
    while (low <= high) {
        int32_t middle = low + (high - low) / 2;
        int order = strcmp(id, registry->clients[middle].id);
        if (order == 0) {
            return middle;
        }
        if (order < 0) {
            high = middle - 1;
        } else {
            low = middle + 1;
        }
    }
    return -1;
}

enum meed_status meed_registry_identify(struct meed_registry *registry,
                                        const struct meed_rpc_peer *peer, int32_t *client)
{
    if (!registry->insecure && !peer->authenticated) {
        return MEED_FAIL(MEED_UNAUTHENTICATED,
                         "this federation needs a client certificate; ask its "
                         "operator for one (meed provision)");
    }
    if (peer->client_id[0] == '\0') {
        return MEED_FAIL(MEED_UNAUTHENTICATED, "the caller has no id: its certificate needs the "
                                               "URI SAN meed:client/ID");
    }
    pthread_mutex_lock(&registry->lock);
    int32_t found = meed_registry_find(registry, peer->client_id);
    struct meed_registry_client entry = {.revoked = false};
    if (found >= 0) {
        entry = registry->clients[found];
    }
    pthread_mutex_unlock(&registry->lock);
    if (found < 0) {
        return MEED_FAIL(MEED_DENIED, "%s is not in the roster of this federation",
                         peer->client_id);
    }
    if (entry.revoked) {
        return MEED_FAIL(MEED_DENIED, "%s was revoked by the operator", peer->client_id);
    }
    if (entry.pinned && peer->authenticated &&
        memcmp(entry.certificate_sha256, peer->certificate_sha256, MEED_SHA256_BYTES) != 0) {
        return MEED_FAIL(MEED_DENIED, "%s has another certificate than the roster's",
                         peer->client_id);
    }
    *client = found;
    return MEED_OK;
}

enum meed_status meed_registry_format(const struct meed_registry_client *clients, int32_t count,
                                      struct meed_buf *text)
{
    int bad = 0;
    json_t *root = json_object(), *list = json_array();
    bad |= json_object_set_new(root, "meed_roster", json_integer(1));
    for (int32_t i = 0; i < count; i++) {
        json_t *entry = json_object();
        char hex[MEED_SHA256_HEX_BYTES];
        meed_sha256_hex(clients[i].certificate_sha256, hex);
        bad |= json_object_set_new(entry, "id", json_string(clients[i].id));
        if (clients[i].pinned) {
            bad |= json_object_set_new(entry, "certificate", json_string(hex));
        }
        if (clients[i].name[0] && strcmp(clients[i].name, clients[i].id) != 0) {
            bad |= json_object_set_new(entry, "name", json_string(clients[i].name));
        }
        if (clients[i].revoked) {
            bad |= json_object_set_new(entry, "revoked", json_true());
        }
        bad |= json_array_append_new(list, entry);
    }
    bad |= json_object_set_new(root, "clients", list);
    char *dump = bad ? NULL : json_dumps(root, JSON_INDENT(2));
    enum meed_status st = dump ? meed_buf_printf(text, "%s\n", dump)
                               : MEED_FAIL(MEED_FORMAT, "a name in the roster is not UTF-8");
    free(dump);
    json_decref(root);
    return st;
}
