/* Private to the cluster files. */
#ifndef PPSIM_CLUSTER_INTERNAL_H
#define PPSIM_CLUSTER_INTERNAL_H

#include "core/json_reader.h"

#define PP_CLUSTER_NODES_MAX 100000
#define PP_CLUSTER_DEVICES_MAX 1048576

pp_cluster *pp_cluster_new_empty(void); /* NULL when out of memory */
/* Room for so many of each; false when out of memory. */
bool pp_cluster_reserve(pp_cluster *cluster, int device_kinds, int node_kinds, int overrides);
/* The cluster of a document, part of a larger one or not. */
pp_status pp_cluster_from_node(const pp_json_node *document, pp_cluster **cluster, pp_error *error);
/* A preset such as "dgx-h100:4"; *found false: there is none of that name. */
pp_status pp_cluster_preset_make(const char *name, int device_count, bool *found,
                                 pp_cluster **cluster, pp_error *error);

/* Field tables, shared by reader and writer. A link has three tables, since only the one between
 * nodes may be shared and only overrides say whose they are. */
extern const pp_field pp_all_reduce_field;
extern const pp_field pp_device_fields[];
extern const int pp_device_field_count;
extern const pp_field pp_flops_fields[];
extern const int pp_flops_field_count;
extern const pp_field pp_intra_fields[];
extern const int pp_intra_field_count;
extern const pp_field pp_inter_fields[];
extern const int pp_inter_field_count;
extern const pp_field pp_override_fields[];
extern const int pp_override_field_count;

#endif
