/* Finding stop strings in text that comes in pieces. */
#ifndef GM_FRONTEND_STOP_MATCH_H
#define GM_FRONTEND_STOP_MATCH_H

#include "runtime/base.h"

typedef struct fe_stop_match {
    const char *const *stops; /* borrowed; none of them empty */
    size_t count;
    gm_string held; /* text that may turn out to start a stop string */
} fe_stop_match;

/* Add text; what can no longer be part of a stop string is appended to out. True as soon as a stop
 * string is complete: the text before it is then in out, it and everything after it is dropped. The
 * result does not depend on how the text is cut into pieces; of stop strings that end at the same
 * place the longest counts. */
bool fe_stop_match_push(fe_stop_match *match, const char *text, size_t length, gm_string *out);
/* The text ended: append what is still held, and release it. */
void fe_stop_match_finish(fe_stop_match *match, gm_string *out);

#endif
