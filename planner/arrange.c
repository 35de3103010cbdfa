/* Which device each position of a plan has: kinds, memory and links follow from it. */
#include <string.h>

#include "planner/planner_internal.h"

pp_arrangement *pp_arrangement_make(pp_tables *tables, int ranks, int width, const int *devices,
                                    pp_arena *arena) {
    pp_arrangement *made = PP_NEW(arena, pp_arrangement, 1);
    if (made == NULL) return NULL;
    *made = (pp_arrangement){.ranks = ranks,
                             .width = width,
                             .devices = devices,
                             .kinds = pp_tables_kinds(tables, devices, ranks * width),
                             .rank_kinds = PP_NEW(arena, const pp_kinds *, ranks),
                             .limit_bytes = PP_NEW(arena, int64_t, ranks)};
    if (arena->failed || made->kinds == NULL) return NULL;
    for (int p = 0; p < ranks; p++) {
        const int *of_rank = devices + (size_t)p * (size_t)width;
        int64_t least = INT64_MAX;
        for (int i = 0; i < width; i++) {
            int64_t memory = pp_cluster_device(tables->cluster, of_rank[i])->memory_bytes;
            if (memory < least) least = memory;
        }
        made->limit_bytes[p] =
            tables->request->memory_bytes > 0 ? tables->request->memory_bytes : least;
        made->limit_total += (double)made->limit_bytes[p];
        made->rank_kinds[p] = pp_tables_kinds(tables, of_rank, width);
        if (made->rank_kinds[p] == NULL) return NULL;
    }
    return made;
}
