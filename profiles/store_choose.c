/* Whose samples are meant. A store may hold sessions of several devices, and a cluster names its
 * devices as people do ("h100-sxm-80gb") while a session has the name that the driver gives
 * ("NVIDIA H100 80GB HBM3"), so that names can only be held against each other loosely. */
#include "profiles/store_internal.h"

#include <string.h>
#include <strings.h>

bool pp_session_may_be(const pp_session *session, const char *kind) {
    return strcasecmp(kind, session->backend) == 0 || pp_device_may_be(kind, session->device);
}

static bool is_of(const pp_session *session, const pp_cluster *cluster) {
    for (int i = 0; i < cluster->node_kind_count; i++)
        if (pp_session_may_be(session, cluster->devices[cluster->nodes[i].device].name))
            return true;
    return false;
}

static bool matches(const pp_session *session, const char *backend, pp_dtype dtype) {
    return session->dtype == dtype && (!backend || strcmp(backend, session->backend) == 0);
}

pp_status pp_store_choose(pp_store *store, const pp_cluster *cluster, const char *backend,
                          pp_dtype dtype, pp_session *session, bool *found, pp_error *error) {
    pp_session *sessions;
    size_t count;
    bool fits = false;
    *found = false;
    PP_TRY(pp_store_sessions(store, &sessions, &count, error));
    for (size_t i = 0; i < count && !fits; i++) { /* newest first */
        if (!matches(&sessions[i], backend, dtype)) continue;
        fits = is_of(&sessions[i], cluster);
        if (fits || !*found) *session = sessions[i];
        *found = true;
    }
    pp_free(sessions);
    return PP_OK;
}
