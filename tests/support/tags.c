/* See tags.h. */
#include "tests/support/tags.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MOST = 64, NAME_BYTES = 32 };

static char fault[256];
static char open_names[DEPTH_MOST][NAME_BYTES];
static int depth;

static const char *say(const char *what, const char *at)
{
    snprintf(fault, sizeof fault, "%s at \"%.80s\"", what, at);
    return fault;
}

static bool is_void(const char *name)
{
    return strcmp(name, "meta") == 0 || strcmp(name, "!DOCTYPE") == 0;
}

static const char *entity_fault(const char *at)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strncmp(at, known[i], strlen(known[i])) == 0) {
            return NULL;
        }
    }
    return say("a raw &", at);
}

/* Moves *at behind the attributes; the '>' is next. */
static const char *attributes_fault(const char **at, bool *closed)
{
    const char *c = *at;
    while (*c && *c != '>') {
        if (isspace((unsigned char)*c)) {
            c++;
        } else if (*c == '/' && c[1] == '>') {
            *closed = true;
            c++;
        } else if (isalpha((unsigned char)*c)) {
            while (isalnum((unsigned char)*c) || *c == '-') {
                c++;
            }
            if (*c == ' ' || *c == '>') {
                continue; /* <!DOCTYPE html> */
            }
            if (*c != '=' || c[1] != '"') {
                return say("an attribute without quotes", *at);
            }
            for (c += 2; *c && *c != '"'; c++) {
                if (*c == '<' || (*c == '&' && entity_fault(c))) {
                    return say("raw text in an attribute", c);
                }
            }
            c++;
        } else {
            return say("no attribute", c);
        }
    }
    *at = c;
    return *c == '>' ? NULL : say("an open tag", *at);
}

static const char *tag_fault(const char **at)
{
    char name[NAME_BYTES];
    const char *begin = *at;
    const char *c = begin + 1;
    bool closing = *c == '/';
    bool closed = false;
    c += closing;
    size_t length = strcspn(c, " \n>/");
    if (length == 0 || length >= sizeof name) {
        return say("no tag", begin);
    }
    snprintf(name, sizeof name, "%.*s", (int)length, c);
    c += length;
    const char *wrong = attributes_fault(&c, &closed);
    if (wrong) {
        return wrong;
    }
    *at = c + 1;
    if (closing) {
        if (depth == 0 || strcmp(open_names[--depth], name) != 0) {
            return say("a closing tag without its twin", begin);
        }
    } else if (!closed && !is_void(name)) {
        if (depth == DEPTH_MOST) {
            return say("too deep", begin);
        }
        snprintf(open_names[depth++], NAME_BYTES, "%s", name);
    }
    return NULL;
}

const char *tags_fault(const char *document)
{
    depth = 0;
    for (const char *at = document; *at;) {
        const char *wrong = NULL;
        if (depth > 0 && strcmp(open_names[depth - 1], "style") == 0) {
            at = strstr(at, "</style>"); /* CSS has its own rules */
            if (!at) {
                return say("a style without end", document);
            }
        }
        if (*at == '<') {
            wrong = tag_fault(&at);
        } else {
            wrong = *at == '&' ? entity_fault(at) : *at == '>' ? say("a raw >", at) : NULL;
            at++;
        }
        if (wrong) {
            return wrong;
        }
    }
    return depth ? say("a tag that nobody closes", open_names[depth - 1]) : NULL;
}
