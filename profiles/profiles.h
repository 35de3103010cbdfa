/* profiles: the SQLite store of raw samples, and the cost models fitted to them. Floor 2; uses core
 * alone. It stores and fits; timing is the executor's business.
 *
 *   store.c     sessions and samples in SQLite; store_read.c reads them, store_choose.c knows which
 *               are meant, store_schema.c the tables and their migrations, store_sql.c is the border
 *               to SQLite
 *   fit.c       seconds as a function of the microbatch size, with GSL
 *   analytic.c  seconds from FLOPs and bytes where nothing was measured
 *   costs.c     "how long is layer i, phase p, at microbatch b, on this kind of device": the one
 *               question that planner asks
 *   import.c    profiles of other programs as models; a file import_NAME.c for each format */
#ifndef PPSIM_PROFILES_H
#define PPSIM_PROFILES_H

#include "core/core.h"

/* ---- the store ----------------------------------------------------------------------------- */

typedef struct pp_store pp_store;

/* Everything that a set of measurements has in common. Strings at most 127 bytes. */
typedef struct pp_session {
    int64_t id;             /* given by the store */
    char device[128];       /* "AMD EPYC 9B14", "NVIDIA H200" */
    char backend[32];       /* "cpu" */
    pp_dtype dtype;
    char driver[128];       /* kernel or driver version */
    char libraries[256];    /* "ppsim 0.1.0, OpenBLAS 0.3.21 SkylakeX" */
    char clocks[128];       /* what is known of the clock rate */
    char date[32];          /* UTC, ISO 8601 */
    char model[64];         /* name of the model that was profiled, for --list */
    int64_t sample_count;   /* filled by the store */
} pp_session;

/* Opens or creates a store. A file that is not a store, or of a newer version, is PP_E_INPUT and is
 * not touched. read_only never creates. WAL, foreign keys, checksummed rows (promise P10). */
pp_status pp_store_open(const char *path, bool read_only, pp_store **store, pp_error *error);
void pp_store_close(pp_store *store);

/* Writes one session with all its samples in one transaction (BEGIN IMMEDIATE, bounded retry): all
 * of it or nothing. Sets session->id. */
pp_status pp_store_add(pp_store *store, pp_session *session, const pp_sample *samples, size_t count,
                       pp_error *error);

/* Sessions, newest first; *sessions is the caller's (pp_free). */
pp_status pp_store_sessions(pp_store *store, pp_session **sessions, size_t *count, pp_error *error);

/* Samples of a session, or (session_id 0) of all sessions on one device: of those that match
 * backend and device (NULL: any) and dtype, the sessions on the backend and device of the newest,
 * since times of two devices are not of one kind. Of each (signature, phase, microbatch, slices,
 * neighbours) the raw samples of the newest session that measured it. Sorted by that key, then as
 * they were measured; *samples is the caller's (pp_free). Rows whose checksum does not hold are
 * PP_E_INPUT, naming row and file. */
pp_status pp_store_samples(pp_store *store, int64_t session_id, const char *backend,
                           const char *device, pp_dtype dtype, pp_sample **samples, size_t *count,
                           pp_error *error);

/* Whose samples are meant for a cluster: the newest session in this type and on this backend (NULL:
 * any) whose device may be one of the cluster's, else the newest of all these. *found: there is
 * one. */
pp_status pp_store_choose(pp_store *store, const pp_cluster *cluster, const char *backend,
                          pp_dtype dtype, pp_session *session, bool *found, pp_error *error);

/* Deletes a session and its samples; an unknown id is PP_E_INPUT. */
pp_status pp_store_delete(pp_store *store, int64_t session_id, pp_error *error);

/* A hash of everything that pp_store_samples would return for session 0 and any device. */
pp_status pp_store_hash(pp_store *store, const char *backend, pp_dtype dtype, uint64_t *hash,
                        pp_error *error);

/* ---- fitting ------------------------------------------------------------------------------- */

typedef enum pp_fit_kind {
    PP_FIT_LINEAR,    /* a + b·x, robust (bisquare) */
    PP_FIT_MONOTONE   /* piecewise through isotonic medians, where the residuals reject the line */
} pp_fit_kind;

/* Seconds as a function of x (samples, or bytes). Knots: distinct x with their medians. */
#define PP_FIT_KNOTS 64
typedef struct pp_fit {
    pp_fit_kind kind;
    double intercept, slope;
    double relative_error;   /* median over the knots of |residual| / value, or of how far the median
                                itself is in doubt (half its 95 % interval) where this is more; of a
                                median of 0, which differences can have: 1 */
    int knot_count;
    double x[PP_FIT_KNOTS];
    double y[PP_FIT_KNOTS];      /* medians; of a monotone fit: pooled where they fell */
    double spread[PP_FIT_KNOTS]; /* MAD */
} pp_fit;

/* x, y : [count] raw points, any order; at least one, at most PP_FIT_KNOTS different x. Never
 * negative, never decreasing in x. One knot alone: proportional to x (constant where x is 0). */
pp_status pp_fit_points(const double *x, const double *y, size_t count, pp_fit *fit, pp_error *error);
double pp_fit_at(const pp_fit *fit, double x); /* extrapolates linearly, never below 0 */

/* ---- costs --------------------------------------------------------------------------------- */

typedef struct pp_costs pp_costs;

typedef struct pp_cost {
    double seconds;
    double relative_error;   /* of the fit or, modelled, 1 */
    pp_cost_source source;
} pp_cost;

typedef struct pp_costs_request {
    const pp_model *model;
    const pp_cluster *cluster; /* its kinds of devices give the modelled costs */
    pp_dtype dtype;
    const char *db;            /* NULL: everything modelled */
    const char *backend;       /* whose samples; NULL: whatever the store has, newest first */
    int neighbours;            /* ranks beside each; the nearest number measured is taken */
    double idle_share;         /* of the time these are idle: where the db has times beside them and
                                  alone, a layer takes that share of the way from one to the other */
    bool model_missing;        /* layers that the db lacks are modelled */
} pp_costs_request;

/* Cost models of every layer on every kind of device that the cluster has. Modelled times are of
 * each kind. Measured ones hold for the kinds whose name fits what was measured; if none does, for
 * that of device 0, with a warning. Opaque layers that were not measured say what they cost on the
 * kind of device 0. On other kinds both are scaled by the modelled ratio between the kinds (of opaque layers: by the
 * ratio of their FLOP rates, as they are where a kind states none), and count as modelled.
 * With a db, a layer that was never measured is PP_E_INPUT and names the layer and the
 * `ppsim profile` call that would measure it, unless model_missing; so is a kind that cannot be
 * modelled but has to be. Rates of the model are fitted (efficiency.c) to whatever the db holds of
 * the same backend and dtype. */
pp_status pp_costs_open(const pp_costs_request *request, pp_costs **costs, pp_error *error);
void pp_costs_close(pp_costs *costs);

/* One phase of one microbatch of one layer. */
typedef struct pp_cost_query {
    int kind;  /* of device: index into pp_cluster.devices, of which some device is */
    int layer; /* index in the model */
    pp_phase phase;
    int64_t samples;
    int tp; /* devices that the layer is divided over, and one of which is asked about; 0: 1. The
               model must divide (pp_model_can_shard). Without what these devices add up. Measured
               where the store has the part's signature; else whole layers' measured times are
               scaled by the modelled ratio between part and whole, and count as modelled */
} pp_cost_query;
pp_cost pp_costs_ask(const pp_costs *costs, pp_cost_query query); /* thread-safe */
/* The same on the kind of device 0. */
pp_cost pp_costs_layer(const pp_costs *costs, int layer, pp_phase phase, int64_t samples);
/* What of F recompute attention repeats; the query's phase counts for nothing. Nobody measures it: it
 * is the share of F that the model gives it by FLOPs and bytes, and is marked as modelled. */
pp_cost pp_costs_attention(const pp_costs *costs, pp_cost_query query);
/* All slices of a microbatch that is cut into so many along its sequences, one after the other;
 * *tilt_s: the last takes so much longer than the first. Nobody measures slices: they take so many
 * times what the whole does as the model says (without rates: by its FLOPs), and count as modelled.
 * F, I and W alone; the model must allow it (pp_model_can_slice). O(slices). */
pp_cost pp_costs_slices(const pp_costs *costs, pp_cost_query query, int slices, double *tilt_s);
/* The lowest kind of some device on which everything takes as long as on this one. */
int pp_costs_alike(const pp_costs *costs, int kind);
/* One transfer of `bytes` over a link of the cluster: measured (local transport) where the store has
 * it and both devices share a node, else latency + bytes / bandwidth. */
pp_cost pp_costs_transfer(const pp_costs *costs, pp_link link, int64_t bytes);
/* The idle_share matters: some layer was measured alone and beside neighbours, and differs. */
bool pp_costs_contended(const pp_costs *costs);
/* The worker's own cost per action; 0 where not measured. */
double pp_costs_overhead(const pp_costs *costs);
/* What the plan says of its costs: weakest source, of one kind of device or of all that the cluster
 * has; one line for people; hash of the samples. */
pp_cost_source pp_costs_source_of(const pp_costs *costs, int kind);
pp_cost_source pp_costs_source(const pp_costs *costs);
const char *pp_costs_note(const pp_costs *costs);
/* What was measured, what modelled, and how good the model proves to be. */
typedef struct pp_costs_model {
    int measured_layers, modelled_layers;     /* the rest is opaque */
    bool fitted;                              /* rates were fitted to a db; else assumed */
    double flops_per_s, bytes_per_s, start_s; /* of the kind at home; 0: not known */
    size_t point_count;                       /* of this model's layers, phases and sizes, measured … */
    double median_error, worst_error;         /* … |modelled - measured| / measured over them */
} pp_costs_model;
const pp_costs_model *pp_costs_model_of(const pp_costs *costs);
uint64_t pp_costs_hash(const pp_costs *costs);

/* ---- importing ----------------------------------------------------------------------------- */

/* A format of another program's files. */
typedef struct pp_importer {
    const char *name;    /* "pipedream" */
    const char *summary; /* one line */
    const char *shape;   /* what the file looks like */
} pp_importer;
const pp_importer *pp_importer_at(int index); /* NULL behind the last */

/* Zero means default. */
typedef struct pp_import_options {
    int64_t profile_batch; /* samples that the profiled minibatch held; default 1: the minibatch
                              counts as one sample */
    int layers;            /* aceso: how often the model repeats its layer; default 1 */
    int tp;                /* piper: the tensor-parallel width whose costs are taken; default 1 */
} pp_import_options;

#define PP_IMPORT_LIMIT_BYTES ((size_t)64 << 20)

/* A model (pp_model_free) of what a file in that format says. Of a configuration (hf): layers with
 * their dimensions. Of a profile: opaque layers in topological order, seconds and bytes per sample,
 * edges as in the file. A backward time that was measured undivided
 * is halved into input and weight and flagged (pp_layer.backward_assumed). An unknown format, and
 * whatever is wrong in the file, is PP_E_INPUT; the place is file:line:column, in JSON the path. The model's name is
 * the file's. `text` is NUL-terminated; options may be NULL. O(n log n). */
pp_status pp_import_file(const char *format, const char *path, const pp_import_options *options,
                         pp_model **model, pp_error *error);
pp_status pp_import_text(const char *format, const char *text, size_t length, const char *file_name,
                         const pp_import_options *options, pp_model **model, pp_error *error);

#endif
