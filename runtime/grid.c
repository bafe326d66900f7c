/* The codebooks of grid.def as arrays, and their unpacking. */
#include "runtime/grid.h"

#define GRID(name, elems, levels, ...) static const uint16_t entries_##name[] = {__VA_ARGS__};
#include "runtime/grid.def"
#undef GRID

#define LIST(...)                                                                                                      \
    { __VA_ARGS__ }
static const rt_grid grids[RT_GRID_COUNT] = {
#define GRID(name, elems, levels, ...)                                                                                 \
    [RT_GRID_##name] = {#name, entries_##name, GM_COUNT(entries_##name), elems, LIST levels},
#include "runtime/grid.def"
#undef GRID
};

const rt_grid *rt_grid_of(rt_grid_id id) {
    GM_ASSERT((unsigned)id < RT_GRID_COUNT);
    return &grids[id];
}

void rt_grid_entry(const rt_grid *grid, int entry, int8_t *out) {
    int bits = 16 / grid->elems;
    for (int i = 0; i < grid->elems; i++) out[i] = grid->value[grid->entries[entry] >> bits * i & ((1 << bits) - 1)];
}
