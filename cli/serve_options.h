/* The flags of `meed serve` as an aggregator's config.
 *
 * Values come from three places, later ones win: the aggregator's defaults, a federation file
 * (--config), the flags. The struct owns what the config points at.
 */
#ifndef MEED_CLI_SERVE_OPTIONS_H
#define MEED_CLI_SERVE_OPTIONS_H

#include "cli/client_list.h"
#include "cli/federation_file.h"
#include "server/aggregator.h"

struct meed_serve_options {
    struct meed_aggregator_config config;
    struct meed_federation_file file; /* of --config */
    const char *file_ids[MEED_FEDERATION_MAX_CLIENTS];
    struct meed_client_list clients; /* of --clients */
    int64_t linger_ms;
    const char *address_file; /* NULL: none */
    bool quiet;
};

/* ARG or CONFIG with the flag in the sentence. Clear also after a failure. */
MEED_MUST_CHECK enum meed_status meed_serve_options_parse(int argc, char **argv,
                                                          struct meed_serve_options *options);
void meed_serve_options_clear(struct meed_serve_options *options);

#endif
