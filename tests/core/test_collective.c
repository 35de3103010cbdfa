/* All-reduces by hand: every figure below can be worked out on paper. */
#include "document_support.h"

#include <math.h>

COUNTED_SUITE(collective);

/* Nodes of 4 devices: links of 8 bytes/s and 1 s inside, of 2 bytes/s and 10 s between. */
static pp_cluster *boxes(const char *kind, bool shared) {
    char text[700];
    pp_cluster *cluster;
    pp_error error = {0};
    int length = snprintf(
        text, sizeof text,
        "{\"format\":\"ppsim-cluster\",\"version\":1,\"name\":\"boxes\",\"all_reduce\":\"%s\","
        "\"devices\":[{\"name\":\"a\",\"memory_bytes\":1}],\"nodes\":[{\"device\":\"a\",\"count\":"
        "4,"
        "\"repeat\":16}],\"intra\":{\"bandwidth_bytes_per_s\":8,\"latency_s\":1},\"inter\":{"
        "\"bandwidth_bytes_per_s\":2,\"latency_s\":10,\"shared_per_node\":%s}}",
        kind, shared ? "true" : "false");
    cr_assert_eq(pp_cluster_read(text, (size_t)length, "x.json", &cluster, &error), PP_OK, "%s",
                 error.message);
    return cluster;
}

static double seconds(const char *kind, bool shared, int first, int step, int count, int beside,
                      double bytes) {
    int devices[64];
    for (int i = 0; i < count; i++) devices[i] = first + i * step;
    pp_cluster *cluster = boxes(kind, shared);
    pp_all_reduce cost = pp_all_reduce_over(cluster, devices, count, beside);
    double found = pp_all_reduce_s(&cost, bytes);
    cr_assert_leq(pp_all_reduce_latency_s(&cost, bytes), found);
    pp_cluster_free(cluster);
    return found;
}

Test(collective, alone_nothing_is_moved) {
    cr_assert_eq(seconds("ring", false, 5, 1, 1, 1, 1e9), 0);
    cr_assert_eq(seconds("tree", false, 5, 1, 1, 1, 1e9), 0);
}

/* 2(n-1) rounds, a quarter of the bytes in each: 6 · 1 + 6/4 · 80/8. */
Test(collective, ring_in_a_node) {
    cr_assert_eq(seconds("ring", false, 0, 1, 4, 1, 80), 6 + 15);
}

/* One slow link makes every round slow: 14 · 10 + 14/8 · 80/2. */
Test(collective, ring_over_two_nodes) {
    cr_assert_eq(seconds("ring", false, 0, 1, 8, 1, 80), 140 + 70);
}

/* A chain of 4 and back: 2 · 3 · 1 + 2 · 80/8. */
Test(collective, tree_in_a_node) {
    cr_assert_eq(seconds("tree", false, 0, 1, 4, 1, 80), 6 + 20);
}

/* 16 nodes are 4 levels: 2 · (3 · 1 + 4 · 10) + 2 · 80/2; one device of each: 2 · 4 · 10 + 80. */
Test(collective, tree_over_sixteen_nodes) {
    cr_assert_eq(seconds("tree", false, 0, 1, 64, 1, 80), 86 + 80);
    cr_assert_eq(seconds("tree", false, 0, 4, 16, 1, 80), 80 + 80);
}

/* Two groups that cross the nodes' cards at once have half of them each. */
Test(collective, groups_beside_each_other_share_cards) {
    cr_assert_eq(seconds("ring", true, 0, 4, 2, 2, 80), 20 + 2 * 40);
    cr_assert_eq(seconds("tree", true, 0, 4, 2, 2, 80), 20 + 4 * 40);
    cr_assert_eq(seconds("ring", false, 0, 4, 2, 2, 80), 20 + 40, "not where each has its own");
    cr_assert_eq(seconds("ring", true, 0, 1, 4, 2, 80), 21, "nor inside a node");
}

Test(collective, the_cheaper_is_taken_unless_one_is_named) {
    for (double bytes = 0; bytes < 1e5; bytes = 2 * bytes + 1) {
        double ring = seconds("ring", false, 0, 1, 64, 1, bytes);
        double tree = seconds("tree", false, 0, 1, 64, 1, bytes);
        cr_assert_eq(seconds("cheaper", false, 0, 1, 64, 1, bytes), fmin(ring, tree));
    }
    cr_assert_lt(seconds("tree", false, 0, 1, 64, 1, 1), seconds("ring", false, 0, 1, 64, 1, 1));
    cr_assert_gt(seconds("tree", false, 0, 1, 64, 1, 1e5),
                 seconds("ring", false, 0, 1, 64, 1, 1e5));
}
