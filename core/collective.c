/* What it costs to sum the same tensor of several devices, so that each of them has the sum: the
 * all-reduce of gradients over replicas, of tied weights over stages, of a sharded layer's outputs
 * over its group.
 *
 * n devices, b bytes on each; a and B are the latency and bandwidth of the slowest link that is
 * used. Two ways:
 *
 *   ring   2(n-1)·a + 2(n-1)/n · b/B
 *          In each of 2(n-1) rounds everyone passes 1/n of the bytes on (Patarasuk and Yuan,
 *          "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 2009, 3).
 *   tree   2·((g-1)·a_node + ⌊log2 m⌋·a_net) + 2·b/B
 *          Sums travel along a chain through the g devices of each node and up a double binary
 *          tree over the m nodes, then back, in pieces that follow each other (Sanders, Speck and
 *          Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan", Parallel
 *          Computing 2009, 5; latencies counted as in NCCL's tuning model, src/graph/tuning.cc:
 *          2·((ranks/nodes - 1)·intra + log2(nodes)·inter), half the bandwidth of a bus).
 *
 * The ring moves fewer bytes, the tree takes fewer steps: which is cheaper depends on b. As in NCCL
 * the cheaper is taken, unless the cluster names one. */
#include "core/core.h"

#include <math.h>
#include <string.h>

static const char *const names[PP_ALL_REDUCE_COUNT] = {[PP_ALL_REDUCE_CHEAPER] = "cheaper",
                                                       [PP_ALL_REDUCE_RING] = "ring",
                                                       [PP_ALL_REDUCE_TREE] = "tree"};

const char *pp_all_reduce_name(pp_all_reduce_kind kind) {
    return names[kind];
}

/* ---- the links that are used ---------------------------------------------------------------- */

/* The link between two devices when so many equal groups use it at the same time. */
static pp_line line_between(const pp_cluster *cluster, int from, int to, int beside) {
    pp_link link = pp_cluster_link(cluster, from, to);
    double sharers = link.shared_per_node ? beside : 1;
    return (pp_line){link.latency_s, sharers / link.bandwidth_bytes_per_s};
}

static void slow_down(pp_line *slowest, pp_line line) {
    slowest->fixed_s = fmax(slowest->fixed_s, line.fixed_s);
    slowest->per_byte_s = fmax(slowest->per_byte_s, line.per_byte_s);
}

static pp_line ring_of(const pp_cluster *cluster, const int *devices, int count, int beside) {
    pp_line slowest = {0, 0};
    for (int i = 0; i < count; i++)
        slow_down(&slowest, line_between(cluster, devices[i], devices[(i + 1) % count], beside));
    double rounds = 2.0 * (count - 1);
    return (pp_line){rounds * slowest.fixed_s, rounds / count * slowest.per_byte_s};
}

/* ---- the tree ------------------------------------------------------------------------------- */

/* The node that begins before devices[i] goes on to it. */
static bool same_node(const pp_cluster *cluster, const int *devices, int i) {
    return pp_cluster_node_of(cluster, devices[i]) == pp_cluster_node_of(cluster, devices[i - 1]);
}

static int levels_of(int nodes) {
    int levels = 0;
    while (nodes >>= 1) levels++;
    return levels;
}

/* Devices of a node follow each other in the list. Any node may be any other's parent: what they
 * use is the link from the head of one to the head of the next. */
static pp_line tree_of(const pp_cluster *cluster, const int *devices, int count, int beside) {
    pp_line within = {0, 0}, between = {0, 0};
    int nodes = 1, head = 0, longest = 1;
    for (int i = 1; i < count; i++) {
        if (same_node(cluster, devices, i)) {
            slow_down(&within, line_between(cluster, devices[i - 1], devices[i], beside));
        } else {
            slow_down(&between, line_between(cluster, devices[head], devices[i], beside));
            nodes++;
            head = i;
        }
        if (i - head + 1 > longest) longest = i - head + 1;
    }
    double latency_s = (longest - 1) * within.fixed_s + levels_of(nodes) * between.fixed_s;
    return (pp_line){2 * latency_s, 2 * fmax(within.per_byte_s, between.per_byte_s)};
}

/* ---- the whole ------------------------------------------------------------------------------ */

pp_all_reduce pp_all_reduce_over(const pp_cluster *cluster, const int *devices, int count,
                                 int beside) {
    pp_all_reduce cost = {.kind = cluster->all_reduce};
    if (count < 2) return cost;
    if (beside < 1) beside = 1;
    cost.ring = ring_of(cluster, devices, count, beside);
    cost.tree = tree_of(cluster, devices, count, beside);
    return cost;
}

static const pp_line *line_for(const pp_all_reduce *cost, double bytes) {
    double ring_s = cost->ring.fixed_s + bytes * cost->ring.per_byte_s;
    double tree_s = cost->tree.fixed_s + bytes * cost->tree.per_byte_s;
    bool tree =
        cost->kind == PP_ALL_REDUCE_CHEAPER ? tree_s < ring_s : cost->kind == PP_ALL_REDUCE_TREE;
    return tree ? &cost->tree : &cost->ring;
}

double pp_all_reduce_s(const pp_all_reduce *cost, double bytes) {
    const pp_line *line = line_for(cost, bytes);
    return line->fixed_s + bytes * line->per_byte_s;
}

double pp_all_reduce_latency_s(const pp_all_reduce *cost, double bytes) {
    return line_for(cost, bytes)->fixed_s;
}
