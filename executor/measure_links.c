/* How long a message takes through the local transport: two threads play ping-pong.
 *
 * One way is half a round trip: the copy into the receiver's slot and the waking of the receiver.
 * The receiver waits as a rank waits that has nothing else to do. */
#include "executor/measure_internal.h"
#include "executor/transport.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define SMALLEST_BYTES ((int64_t)1 << 10)
#define LARGEST_BYTES ((int64_t)1 << 24)
#define GROWTH 4
#define SIZES 8
#define BUDGET_S 4.0 /* for all sizes, where the machine is not quiet */
#define TIMEOUT_S 10.0
#define SLOTS 2

enum { PING, PONG, CHANNELS };

typedef struct table_tennis {
    pp_transport *transport;
    void *slots[CHANNELS][SLOTS];
    void *ball[CHANNELS]; /* what each side sends */
    int64_t size_bytes;   /* of the messages to come; handed over by the messages themselves */
    uint32_t message;
} table_tennis;

static const pp_transport_ops *const ops = &pp_transport_local;

/* The other side: sends everything back until the transport is aborted. */
static void *echo(void *argument) {
    table_tennis *game = argument;
    for (uint32_t message = 0;; message++) {
        int slot;
        if (ops->receive(game->transport, PING, message, TIMEOUT_S, &slot, NULL) != PP_OK) break;
        size_t size_bytes = (size_t)game->size_bytes;
        ops->release(game->transport, PING, slot);
        if (ops->send(game->transport, PONG, message, game->ball[PONG], size_bytes, NULL) != PP_OK)
            break;
    }
    return NULL;
}

static pp_status round_trip(table_tennis *game, pp_error *error) {
    int slot;
    uint32_t message = game->message++;
    PP_TRY(ops->send(game->transport, PING, message, game->ball[PING], (size_t)game->size_bytes,
                     error));
    PP_TRY(ops->receive(game->transport, PONG, message, TIMEOUT_S, &slot, error));
    ops->release(game->transport, PONG, slot);
    return PP_OK;
}

static pp_status round_trips(table_tennis *game, int count, double *elapsed_s, pp_error *error) {
    double start = pp_now_s();
    for (int i = 0; i < count; i++) PP_TRY(round_trip(game, error));
    *elapsed_s = pp_now_s() - start;
    return PP_OK;
}

static pp_status measure_size(table_tennis *game, const pp_measure_options *options,
                              pp_series *series, pp_error *error) {
    double elapsed, least_s = INFINITY; /* what disturbs a message only makes it longer */
    for (int i = 0; i < 4; i++) {
        PP_TRY(round_trips(game, 3, &elapsed, error));
        least_s = fmin(least_s, elapsed / 3);
    }
    pp_series_start(series, options, BUDGET_S / SIZES, least_s);
    while (!series->done) {
        if (pp_stop_signal()) return pp_measure_interrupted(error);
        PP_TRY(round_trips(game, series->repeat, &elapsed, error));
        pp_series_add(series, elapsed / 2);
    }
    return PP_OK;
}

static pp_status measure_sizes(table_tennis *game, const pp_measure_options *options,
                               pp_error *error) {
    pp_series *series = pp_allocate(sizeof *series);
    if (!series) return pp_fail_memory(error);
    pp_status status = PP_OK;
    int done = 0;
    for (int64_t size = SMALLEST_BYTES; size <= LARGEST_BYTES; size *= GROWTH, done++) {
        char what[64], text[32];
        pp_sample sample = {"link", PP_PHASE_TRANSFER, .microbatch = size};
        snprintf(what, sizeof what, "messages of %s", pp_format_bytes((double)size, text));
        if (options->on_progress)
            options->on_progress(options->context, (double)done / SIZES, what);
        game->size_bytes = size;
        status = measure_size(game, options, series, error);
        if (status != PP_OK) break;
        pp_series_report(series, options, &sample, what);
    }
    pp_free(series);
    return status;
}

static pp_status play(table_tennis *game, const pp_measure_options *options, pp_error *error) {
    pthread_t other;
    if (pthread_create(&other, NULL, echo, game) != 0)
        return pp_fail(error, PP_E_FAILED, NULL, "cannot start a second thread");
    pp_status status = measure_sizes(game, options, error);
    ops->abort(game->transport);
    pthread_join(other, NULL);
    return status;
}

pp_status pp_measure_links(const pp_measure_options *options, pp_error *error) {
    table_tennis game = {0};
    pp_channel_request channels[CHANNELS];
    pp_status status = PP_OK;
    for (int c = 0; c < CHANNELS; c++) {
        channels[c] = (pp_channel_request){.from_stage = c,
                                           .to_stage = 1 - c,
                                           .slot_count = SLOTS,
                                           .slot_bytes = (size_t)LARGEST_BYTES,
                                           .lane = c};
        game.ball[c] = pp_allocate_zeroed(1, (size_t)LARGEST_BYTES);
        if (!game.ball[c]) status = pp_fail_memory(error);
        for (int s = 0; s < SLOTS; s++) {
            game.slots[c][s] = pp_allocate_zeroed(1, (size_t)LARGEST_BYTES);
            if (!game.slots[c][s]) status = pp_fail_memory(error);
        }
    }
    pp_transport_setting setting = {.channels = channels, .channel_count = CHANNELS};
    if (status == PP_OK) status = ops->open(&setting, &game.transport, error);
    if (status == PP_OK) {
        for (int c = 0; c < CHANNELS; c++)
            ops->attach(game.transport, c, game.slots[c], NULL, NULL);
        status = play(&game, options, error);
    }
    ops->close(game.transport);
    for (int c = 0; c < CHANNELS; c++) {
        pp_free(game.ball[c]);
        for (int s = 0; s < SLOTS; s++) pp_free(game.slots[c][s]);
    }
    return status;
}
