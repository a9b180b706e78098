/* Every bound of the wire in one place.
 *
 * A number that a stranger can influence (a size, a count, a name, a time) is compared with one of
 * these before anything is allocated, waited for or looped over. They are compile-time constants on
 * purpose: no operator loosens them by accident, two peers of one version agree on them, and a test
 * can stand on them. Sizes and times behind the transport's values were measured (two cores,
 * loopback and delayed links): with flow-control probing off, which cuts a server's memory to a
 * quarter, a stream moves about one message a round trip, so a chunk is 1 MiB and not 64 KiB.
 */
#ifndef MEED_PROTO_LIMITS_H
#define MEED_PROTO_LIMITS_H

#include <stdint.h>

/* Wire protocol version; a peer with another one is refused with MEED_VERSION. */
enum { MEED_PROTOCOL_VERSION = 1 };

/* Messages. */
enum {
    MEED_LIMIT_CHUNK_BYTES = 1 << 20,
    MEED_LIMIT_MESSAGE_BYTES = (1 << 20) + (64 << 10),
    /* Unpacking multiplies bytes (2-byte fields become structs): the arena of one message. */
    MEED_LIMIT_UNPACKED_BYTES = 4 * MEED_LIMIT_MESSAGE_BYTES,
    MEED_LIMIT_METADATA_BYTES = 4096, /* keys + values + 32 an entry; core kills at 8 KiB */
    MEED_LIMIT_STATUS_TEXT_BYTES = 1024,
};

/* Names and texts, terminating NUL included. */
enum {
    MEED_LIMIT_ID_BYTES = 64,       /* run and client ids: A-Z a-z 0-9 . _ - */
    MEED_LIMIT_SOFTWARE_BYTES = 64, /* "meed 0.1.0" */
    MEED_LIMIT_WORD_BYTES = 32,     /* names of rules: "svd", "gradient", "shrunk" */
    MEED_LIMIT_AXIS_BYTES = 64,
    MEED_LIMIT_REASON_BYTES = 512, /* a sentence for a person */
    MEED_LIMIT_PRIVACY_BYTES = 384, /* what left a client, in one line */
    MEED_LIMIT_TENSOR_NAME_BYTES = 160,
    MEED_LIMIT_ADDRESS_BYTES = 256,
    MEED_LIMIT_PATH_BYTES = 128, /* "/meed.v1.Federation/Join" */
};

/* Counts and ranges. */
enum {
    MEED_LIMIT_CLIENTS = 8192,
    MEED_LIMIT_ROUNDS = 1000000,
    MEED_LIMIT_AXES = 64,
    MEED_LIMIT_LEDGER_PAGE = 256,
    MEED_LIMIT_LEDGER_BODY_BYTES = 768 << 10, /* an entry of a large cohort; pages end at 1 MiB */
    MEED_LIMIT_STEPS = 1000000,
    MEED_LIMIT_BATCH_TOKENS = 1 << 24,
    MEED_LIMIT_SEQUENCE_TOKENS = 1 << 20,
    MEED_LIMIT_ACCUMULATION = 65536,
    MEED_LIMIT_RANK = 1024,
    MEED_LIMIT_SYNTHETIC = 1000000,
    MEED_LIMIT_DEMONSTRATIONS = 1024,
    MEED_LIMIT_ZSTD_LEVEL = 19,
};
#define MEED_LIMIT_SAMPLES INT64_C(1000000000000)
#define MEED_LIMIT_TOKENS INT64_C(1000000000000000)
/* Credits stay exact in a double and in JSON. */
#define MEED_LIMIT_CREDITS INT64_C(9007199254740991)

/* Updates. */
enum {
    MEED_LIMIT_TENSORS = 16384,
    MEED_LIMIT_TENSOR_SIDE = 1 << 24,
    MEED_LIMIT_GROUP_MIN = 16,
    MEED_LIMIT_GROUP_MAX = 65536,
};
#define MEED_LIMIT_TENSOR_VALUES (INT64_C(1) << 28)
#define MEED_LIMIT_UPDATE_VALUES (INT64_C(1) << 33)
#define MEED_LIMIT_TRANSFER_BYTES (INT64_C(1) << 33) /* one adapter or update, either direction */
/* Values whose magnitude reaches 2^96 are a diverged training, not an update. */
#define MEED_LIMIT_VALUE_MAGNITUDE 0x1p96f

/* Server's load. */
enum {
    MEED_LIMIT_LIVE_CALLS = 16384, /* beyond: RESOURCE_EXHAUSTED */
    MEED_LIMIT_POLLERS = 4,
    MEED_LIMIT_WORKERS = 64,
    MEED_LIMIT_STREAMS_PER_CONNECTION = 100,
    MEED_LIMIT_QUOTA_BYTES = 256 << 20, /* core's own memory: a net, never a throttle */
    MEED_LIMIT_READ_CHUNK_BYTES = 64 << 10,
};

/* Times. The server's ping tolerance must not exceed the client's ping interval, or core calls a
 * healthy client abusive and closes it. */
enum {
    MEED_LIMIT_UNARY_MS = 30000,
    MEED_LIMIT_CONNECT_MS = 20000,
    MEED_LIMIT_PROGRESS_MS = 60000, /* a stream without progress for so long is ended */
    MEED_LIMIT_WATCH_MS = 3600000,
    MEED_LIMIT_TRANSFER_BASE_MS = 60000, /* + 1 ms a KiB: 1 MB/s is slow enough for anybody */
    MEED_LIMIT_SERVER_KEEPALIVE_MS = 60000,
    MEED_LIMIT_SERVER_KEEPALIVE_TIMEOUT_MS = 20000,
    MEED_LIMIT_CLIENT_KEEPALIVE_MS = 30000,
    MEED_LIMIT_CLIENT_KEEPALIVE_TIMEOUT_MS = 10000,
    MEED_LIMIT_SERVER_MIN_PING_MS = 10000,
    MEED_LIMIT_HANDSHAKE_MS = 10000,
    MEED_LIMIT_IDLE_CONNECTION_MS = 600000,
    MEED_LIMIT_PROBE_PERIOD_MS = 10000,
    MEED_LIMIT_PROBE_DEADLINE_MS = 3000,
    MEED_LIMIT_SHUTDOWN_GRACE_MS = 5000,
};

#endif
