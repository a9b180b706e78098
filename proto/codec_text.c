/* What texts of strangers may look like: strict UTF-8, and the small alphabet of ids. protobuf-c
 * checks neither, and a Python peer refuses what we would echo. */
#include "proto/codec.h"

#include <string.h>

/* Strict UTF-8: shortest forms, no surrogates, no NUL before the end. */
bool meed_codec_text_valid(const char *text, size_t length)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + length;
    while (p < end) {
        int more = *p < 0x80         ? 0
                   : (*p >> 5) == 6  ? 1
                   : (*p >> 4) == 14 ? 2
                   : (*p >> 3) == 30 ? 3
                                     : -1;
        if (*p == 0 || more < 0 || end - p <= more) {
            return false;
        }
        uint32_t point = more == 0 ? *p : *p & (0x3Fu >> more);
        for (int i = 1; i <= more; i++) {
            if ((p[i] & 0xC0) != 0x80) {
                return false;
            }
            point = point << 6 | (p[i] & 0x3Fu);
        }
        static const uint32_t least[4] = {0, 0x80, 0x800, 0x10000};
        if (point < least[more] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) {
            return false;
        }
        p += more + 1;
    }
    return true;
}

bool meed_codec_id_valid(const char *id)
{
    size_t length = strnlen(id, MEED_LIMIT_ID_BYTES);
    if (length == 0 || length >= MEED_LIMIT_ID_BYTES) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        char c = id[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-')) {
            return false;
        }
    }
    return true;
}
