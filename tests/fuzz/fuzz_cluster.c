/* Any bytes read as a cluster document: refused with a reason, or equal to what is written of it.
 */
#include "fuzz_support.h"

static pp_text written(const pp_cluster *cluster) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_cluster_write(cluster, &json);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    pp_cluster *cluster, *again;
    pp_error error = {0};
    pp_status status = pp_cluster_read((const char *)bytes, length, "input", &cluster, &error);
    must_be_told(status, &error);
    if (status != PP_OK) return 0;
    pp_text first = written(cluster);
    status = pp_cluster_read(first.bytes, first.length, "written", &again, &error);
    must(status == PP_OK, "what was written cannot be read", &error);
    pp_text second = written(again);
    must(same_text(&first, &second), "read(write(x)) is not x", &error);
    int last = pp_cluster_device_count(cluster) - 1;
    must(pp_cluster_node_of(cluster, last) >= 0, "the last device is on no node", &error);
    must(pp_cluster_link(cluster, 0, last).latency_s >= 0, "no link to the last device", &error);
    pp_text_deinit(&first);
    pp_text_deinit(&second);
    pp_cluster_free(cluster);
    pp_cluster_free(again);
    return 0;
}
