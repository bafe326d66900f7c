/* What can be screened, for passes that count on passes/screen_head.c. */
#ifndef GM_PASSES_SCREEN_HEAD_H
#define GM_PASSES_SCREEN_HEAD_H

#include "ir/ir.h"

/* Does the function return the product of its rows with one stored weight that can be screened, whatever number of rows it is specialized to? */
bool pass_can_screen(const ir_func *head);

#endif
