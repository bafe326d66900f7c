/* Seeded random modules for tests: valid, terminating, with every kind of region. */
#ifndef GM_TESTS_RANDOM_MODULE_H
#define GM_TESTS_RANDOM_MODULE_H

#include "ir/interp.h"

/* Functions @helper and @f; @f takes random_args. The caller frees the module. */
ir_module *random_module(uint64_t seed);
enum { RANDOM_ARGS = 5 };
/* Arguments for @f of any random module; data in `arena`. */
void random_args(uint64_t seed, gm_arena *arena, ir_array args[RANDOM_ARGS]);

#endif
