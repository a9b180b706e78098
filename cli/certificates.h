/* The keys and certificates of a federation: `meed provision`, and `meed up` on first start.
 *
 * One folder holds everything; the operator hands each client its two files and ca.pem:
 *
 *   ca.pem  ca.key            certificate authority of this federation
 *   server.pem  server.key    serverAuth and clientAuth (the server probes itself), names as SANs
 *   client-<id>.pem  .key     clientAuth, URI SAN meed:client/<id>: that URI is the identity
 *   ledger.key  ledger.pub    Ed25519; the public half is what auditors check with
 *   roster.json               ids with the SHA-256 of their certificates (server/registry.h)
 *
 * Certificates are ECDSA on P-256, valid ten years from the day before (clocks differ); private
 * keys have mode 0600. Nothing is ever overwritten. OpenSSL stays in certificates.c.
 */
#ifndef MEED_CLI_CERTIFICATES_H
#define MEED_CLI_CERTIFICATES_H

#include <stdint.h>
#include "base/status.h"

/* server_names: "localhost,127.0.0.1,agg.example.org", host names and IP addresses. STATE if the
 * folder holds a ca.pem already; ARG for a bad name or id. */
MEED_MUST_CHECK enum meed_status meed_certificates_provision(const char *folder,
                                                             const char *server_names,
                                                             const char *const *client_ids,
                                                             int32_t client_count);

/* A client's three files, before it dials: each is read, the key is that of the certificate, and
 * the authority issued the certificate for a client, to this day. A server that refuses a client's
 * certificate only hangs up, so without this look a foreign pair would be tried for ever. NOT_FOUND
 * and CONFIG name the file; UNAUTHENTICATED for a foreign or expired certificate. A deployment with
 * two authorities puts both into ca_path. */
MEED_MUST_CHECK enum meed_status meed_certificates_check_client(const char *ca_path,
                                                                const char *certificate_path,
                                                                const char *key_path);
/* A server's: each is read and the key is that of the certificate. Who issued it is for clients to
 * judge. */
MEED_MUST_CHECK enum meed_status meed_certificates_check_server(const char *ca_path,
                                                                const char *certificate_path,
                                                                const char *key_path);

#endif
