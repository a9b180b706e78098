/* Who is let in: the roster against every kind of caller.
 *
 * Goal: only a caller with the right id and the pinned certificate passes; a broken roster file is
 * refused with its line; revocation works without a restart. Method: rosters made here, peers made
 * here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "server/registry.h"

static struct meed_rpc_peer peer_of(const char *id, bool authenticated, uint8_t first)
{
    struct meed_rpc_peer peer = {.authenticated = authenticated};
    snprintf(peer.client_id, sizeof peer.client_id, "%s", id);
    memset(peer.certificate_sha256, first, MEED_SHA256_BYTES);
    return peer;
}

static void registry_takes_ids_in_order(void **state)
{
    (void)state;
    static const char *const ids[] = {"cleo", "anna", "ben"};
    struct meed_registry *registry = NULL;
    assert_int_equal(meed_registry_create(ids, 3, true, &registry), MEED_OK);
    assert_string_equal(meed_registry_id(registry, 0), "anna");
    assert_int_equal(meed_registry_find(registry, "cleo"), 2);
    assert_int_equal(meed_registry_find(registry, "dora"), -1);
    int32_t client = -1;
    struct meed_rpc_peer peer = peer_of("ben", false, 0);
    assert_int_equal(meed_registry_identify(registry, &peer, &client), MEED_OK);
    assert_int_equal(client, 1);
    peer = peer_of("", false, 0);
    assert_int_equal(meed_registry_identify(registry, &peer, &client), MEED_UNAUTHENTICATED);
    meed_registry_destroy(registry);
    static const char *const doubled[] = {"a", "b", "a"};
    static const char *const strange[] = {"a", "b/../c"};
    registry = NULL;
    assert_int_equal(meed_registry_create(doubled, 3, true, &registry), MEED_CONFIG);
    assert_int_equal(meed_registry_create(strange, 2, true, &registry), MEED_CONFIG);
    assert_int_equal(meed_registry_create(ids, 0, true, &registry), MEED_CONFIG);
    assert_null(registry);
}

static void write_roster(const char *path, bool revoke)
{
    struct meed_registry_client clients[3] = {{.id = "anna", .pinned = true, .name = "Anna A."},
                                              {.id = "ben", .name = "Ben"},
                                              {.id = "cleo", .pinned = true, .name = "Cleo"}};
    memset(clients[0].certificate_sha256, 0xaa, MEED_SHA256_BYTES);
    memset(clients[2].certificate_sha256, 0xcc, MEED_SHA256_BYTES);
    clients[0].revoked = revoke;
    struct meed_buf text;
    meed_buf_init(&text, 4096);
    assert_int_equal(meed_registry_format(clients, 3, &text), MEED_OK);
    assert_int_equal(meed_file_write_atomic(path, text.data, text.size), MEED_OK);
    meed_buf_clear(&text);
}

static void registry_checks_certificates_and_revocations(void **state)
{
    (void)state;
    char path[] = "/tmp/meed_roster_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_roster(path, false);
    struct meed_registry *registry = NULL;
    assert_int_equal(meed_registry_load(path, false, &registry), MEED_OK);
    static const struct {
        const char *id;
        bool authenticated;
        uint8_t first;
        enum meed_status status;
    } cases[] = {{"anna", true, 0xaa, MEED_OK},
                 {"anna", true, 0xab, MEED_DENIED},
                 {"anna", false, 0xaa, MEED_UNAUTHENTICATED},
                 {"ben", true, 0x11, MEED_OK},
                 {"dora", true, 0xaa, MEED_DENIED},
                 {"", true, 0xaa, MEED_UNAUTHENTICATED},
                 {"cleo", true, 0xaa, MEED_DENIED}};
    int32_t client = -1;
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        struct meed_rpc_peer peer = peer_of(cases[i].id, cases[i].authenticated, cases[i].first);
        assert_int_equal(meed_registry_identify(registry, &peer, &client), cases[i].status);
    }
    struct meed_rpc_peer anna = peer_of("anna", true, 0xaa);
    usleep(20000);
    write_roster(path, true);
    meed_registry_refresh(registry);
    assert_int_equal(meed_registry_identify(registry, &anna, &client), MEED_DENIED);
    usleep(20000);
    static const char other[] = "{\"meed_roster\": 1, \"clients\": [{\"id\": \"zoe\"}]}";
    assert_int_equal(meed_file_write_atomic(path, other, sizeof other - 1), MEED_OK);
    meed_registry_refresh(registry);
    assert_int_equal(meed_registry_count(registry), 3);
    assert_string_equal(meed_registry_id(registry, 0), "anna");
    meed_registry_destroy(registry);
    unlink(path);
}

static void registry_refuses_broken_rosters(void **state)
{
    (void)state;
    char path[] = "/tmp/meed_roster_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    static const struct {
        const char *text;
        const char *place;
    } cases[] = {
        {"[]", "meed_roster"},
        {"{\"meed_roster\": 2, \"clients\": []}", "meed_roster"},
        {"{\"meed_roster\": 1,\n\"clients\": [,]}", ":2:"},
        {"{\"meed_roster\": 1, \"clients\": [{\"id\": \"a\"}, {\"id\": \"a/b\"}]}", "client 2"},
        {"{\"meed_roster\": 1, \"clients\": [{\"id\": \"a\", \"certificate\": \"12ab\"}]}",
         "client 1"},
        {"{\"meed_roster\": 1, \"clients\": [{\"id\": \"a\", \"revokd\": true}]}", "revokd"},
        {"{\"meed_roster\": 1, \"clients\": [{\"name\": \"a\"}]}", "no \"id\""}};
    struct meed_registry *registry = NULL;
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        assert_int_equal(meed_file_write_atomic(path, cases[i].text, strlen(cases[i].text)),
                         MEED_OK);
        assert_int_equal(meed_registry_load(path, false, &registry), MEED_FORMAT);
        assert_non_null(strstr(meed_last_error(), cases[i].place));
    }
    static const char empty[] = "{\"meed_roster\": 1, \"clients\": []}";
    assert_int_equal(meed_file_write_atomic(path, empty, sizeof empty - 1), MEED_OK);
    assert_int_equal(meed_registry_load(path, false, &registry), MEED_CONFIG);
    assert_null(registry);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registry_takes_ids_in_order),
        cmocka_unit_test(registry_checks_certificates_and_revocations),
        cmocka_unit_test(registry_refuses_broken_rosters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
