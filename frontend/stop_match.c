/* Finding stop strings in text that comes in pieces: byte by byte, what is held back is always the
 * longest end of the text that starts some stop string. */
#include "frontend/stop_match.h"

#include <string.h>

/* Length of the longest stop string that held ends with, 0: none. */
static size_t complete_stop(const fe_stop_match *match) {
    const gm_string *held = &match->held;
    size_t best = 0;
    for (size_t i = 0; i < match->count; i++) {
        size_t length = strlen(match->stops[i]);
        if (length <= best || length > held->length) continue;
        if (memcmp(held->data + held->length - length, match->stops[i], length) == 0) best = length;
    }
    return best;
}

/* Length of the longest end of held that starts a stop string. */
static size_t started_stop(const fe_stop_match *match) {
    const gm_string *held = &match->held;
    for (size_t length = held->length; length > 0; length--)
        for (size_t i = 0; i < match->count; i++)
            if (strncmp(match->stops[i], held->data + held->length - length, length) == 0) return length;
    return 0;
}

static void release(fe_stop_match *match, size_t bytes, gm_string *out) {
    gm_string *held = &match->held;
    gm_string_append(out, held->data, bytes);
    memmove(held->data, held->data + bytes, held->length - bytes);
    held->length -= bytes;
}

bool fe_stop_match_push(fe_stop_match *match, const char *text, size_t length, gm_string *out) {
    for (size_t i = 0; i < length; i++) {
        gm_string_append(&match->held, &text[i], 1);
        size_t stop = complete_stop(match);
        if (stop) {
            release(match, match->held.length - stop, out);
            gm_string_free(&match->held);
            return true;
        }
        release(match, match->held.length - started_stop(match), out);
    }
    return false;
}

void fe_stop_match_finish(fe_stop_match *match, gm_string *out) {
    gm_string_append(out, match->held.data, match->held.length);
    gm_string_free(&match->held);
}
