/* Which device each position of a plan has: kinds, memory and links follow from it.
 *
 * All replicas of a rank work in step, so what they share is that of the slowest: stages take what
 * the slowest kind among them takes, hold what the smallest memory holds, and a border between two
 * ranks is as slow as its slowest link between a device of one and the device at the same place of
 * the other. */
#include <math.h>
#include <string.h>

#include "planner/planner_internal.h"

static bool describe_rank(pp_tables *tables, pp_arrangement *made, int p) {
    int width = made->width, ranks = made->ranks;
    const int *here = made->devices + (size_t)p * (size_t)width;
    const int *next = made->devices + (size_t)((p + 1) % ranks) * (size_t)width;
    int64_t least = INT64_MAX;
    for (int i = 0; i < width; i++) {
        int64_t memory = pp_cluster_device(tables->cluster, here[i])->memory_bytes;
        if (memory < least) least = memory;
        made->cost_per_hour += pp_cluster_device(tables->cluster, here[i])->cost_per_hour;
    }
    int64_t asked = tables->request->memory_bytes;
    made->limit_bytes[p] = asked > 0 ? asked : least;
    made->limit_total += (double)made->limit_bytes[p];
    made->ahead[p] = pp_cluster_slowest_link(tables->cluster, here, next, width);
    made->back[p] = pp_cluster_slowest_link(tables->cluster, next, here, width);
    made->rank_kinds[p] = pp_tables_kinds(tables, here, width);
    return made->rank_kinds[p] != NULL;
}

pp_arrangement *pp_arrangement_make(pp_tables *tables, int ranks, int width, const int *devices,
                                    pp_arena *arena) {
    pp_arrangement *made = PP_NEW(arena, pp_arrangement, 1);
    if (made == NULL) return NULL;
    *made = (pp_arrangement){.ranks = ranks,
                             .width = width,
                             .devices = devices,
                             .kinds = pp_tables_kinds(tables, devices, ranks * width),
                             .rank_kinds = PP_NEW(arena, const pp_kinds *, ranks),
                             .limit_bytes = PP_NEW(arena, int64_t, ranks),
                             .ahead = PP_NEW(arena, pp_link, ranks),
                             .back = PP_NEW(arena, pp_link, ranks)};
    if (arena->failed || made->kinds == NULL) return NULL;
    for (int p = 0; p < ranks; p++) {
        if (!describe_rank(tables, made, p)) return NULL;
    }
    return made;
}

pp_link pp_arrangement_link(const pp_arrangement *arrangement, const pp_cluster *cluster, int from,
                            int to) {
    int ranks = arrangement->ranks, width = arrangement->width;
    if ((from + 1) % ranks == to) return arrangement->ahead[from];
    if ((to + 1) % ranks == from) return arrangement->back[to];
    return pp_cluster_slowest_link(cluster, arrangement->devices + (size_t)from * (size_t)width,
                                   arrangement->devices + (size_t)to * (size_t)width, width);
}

/* ---- equal ones ---------------------------------------------------------------------------- */

enum { COMPARE_ALL_PAIRS = 8 };

static uint64_t hash_line(uint64_t hash, pp_link link) {
    hash = pp_hash(hash, &link.bandwidth_bytes_per_s, sizeof link.bandwidth_bytes_per_s);
    hash = pp_hash(hash, &link.latency_s, sizeof link.latency_s);
    return pp_hash(hash, &link.shared_per_node, sizeof link.shared_per_node);
}

/* Of ranks that are not neighbours too, where they are few: ties and two-way schedules join any. */
static uint64_t hash_pairs(uint64_t hash, const pp_arrangement *a, const pp_cluster *cluster) {
    for (int p = 0; p < a->ranks; p++) {
        for (int q = 0; q < a->ranks; q++) {
            if (p == q) continue;
            int first = a->devices[p * a->width], other = a->devices[q * a->width];
            hash = hash_line(hash, pp_arrangement_link(a, cluster, p, q));
            hash = hash_line(hash, pp_cluster_link(cluster, first, other));
        }
    }
    return hash;
}

/* Nodes by the order in which they come up: who shares one with whom. */
static uint64_t hash_nodes(uint64_t hash, const pp_arrangement *a, const pp_cluster *cluster,
                           int *place) {
    int count = 0, positions = a->ranks * a->width;
    for (int i = 0; i < positions; i++) place[pp_cluster_node_of(cluster, a->devices[i])] = -1;
    for (int i = 0; i < positions; i++) {
        int node = pp_cluster_node_of(cluster, a->devices[i]);
        if (place[node] < 0) place[node] = count++;
        hash = pp_hash(hash, &place[node], sizeof place[node]);
    }
    return hash;
}

uint64_t pp_arrangement_hash(const pp_arrangement *a, const pp_tables *tables, int *scratch) {
    const pp_cluster *cluster = tables->cluster;
    uint64_t hash = PP_HASH_START;
    double per_hour = 0;
    for (int p = 0; p < a->ranks; p++) {
        const int *here = a->devices + (size_t)p * (size_t)a->width;
        hash = pp_hash(hash, &a->rank_kinds[p]->id, sizeof a->rank_kinds[p]->id);
        hash = pp_hash(hash, &a->limit_bytes[p], sizeof a->limit_bytes[p]);
        hash = hash_line(hash_line(hash, a->ahead[p]), a->back[p]);
        for (int i = 0; i < a->width; i++) {
            pp_link link = pp_cluster_link(cluster, here[i], here[(i + 1) % a->width]);
            per_hour += pp_cluster_device(cluster, here[i])->cost_per_hour;
            hash = hash_line(hash, link);
        }
    }
    hash = pp_hash(hash, &per_hour, sizeof per_hour);
    if (a->ranks <= COMPARE_ALL_PAIRS) hash = hash_pairs(hash, a, cluster);
    return hash_nodes(hash, a, cluster, scratch) | 1;
}
