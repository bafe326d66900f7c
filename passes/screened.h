/* What screen_head can screen: also asked by the pass that makes guesses, which are only worth it then. */
#ifndef GM_PASSES_SCREENED_H
#define GM_PASSES_SCREENED_H

#include "ir/ir.h"

/* Why what a function returns is no product whose weight can be screened, soft-capped or not; NULL: it is one. */
const char *pass_why_not_screened(const ir_func *func);

#endif
