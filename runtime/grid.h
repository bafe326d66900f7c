/* Codebooks of the block formats that store numbers of groups of elements: the tables are grid.def. */
#ifndef GM_RUNTIME_GRID_H
#define GM_RUNTIME_GRID_H

#include "runtime/base.h"

typedef enum rt_grid_id {
#define GRID(name, elems, levels, ...) RT_GRID_##name,
#include "runtime/grid.def"
#undef GRID
    RT_GRID_COUNT
} rt_grid_id;

typedef struct rt_grid {
    const char *text;
    const uint16_t *entries; /* levels of the elements, 16 / elems bits each, the first element lowest */
    int count;               /* entries, a power of two */
    int elems;               /* per entry: 8 or 4 */
    int8_t value[8];         /* of a level */
} rt_grid;

const rt_grid *rt_grid_of(rt_grid_id id);
/* out[0..grid->elems) = the values of entry `entry`, which is below grid->count. */
void rt_grid_entry(const rt_grid *grid, int entry, int8_t *out);

#endif
