/* How long a message takes through the local transport: two threads play ping-pong.
 *
 * One way is half a round trip: the copy into the receiver's slot, by the backend that is measured
 * and in its memory, and the waking of the receiver. The receiver waits as a rank waits that has
 * nothing else to do. */
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
    const pp_backend *backend;
    pp_backend_seat seat;
    void *state[CHANNELS]; /* of the side that sends on it */
    pp_status echo_status;
    pp_error echo_error;
    pp_transport *transport;
    void *slots[CHANNELS][SLOTS];
    void *ball[CHANNELS]; /* what each side sends */
    int64_t size_bytes;   /* of the messages to come; handed over by the messages themselves */
    uint32_t message;
} table_tennis;

static const pp_transport_ops *const ops = &pp_transport_local;

static pp_status hit(const table_tennis *game, int channel, uint32_t number, pp_error *error) {
    pp_message_part part;
    pp_message message =
        pp_message_whole(&part, number, game->ball[channel], (size_t)game->size_bytes);
    message.backend = game->backend;
    message.backend_state = game->state[channel];
    return ops->send_message(game->transport, channel, &message, error);
}

/* Sends everything back until the transport is aborted. */
static pp_status send_back(table_tennis *game, pp_error *error) {
    for (uint32_t number = 0;; number++) {
        int slot;
        if (ops->receive(game->transport, PING, number, TIMEOUT_S, &slot, NULL) != PP_OK)
            return PP_OK;
        ops->release(game->transport, PING, slot);
        PP_TRY(hit(game, PONG, number, error));
    }
}

/* The other side: a rank of its own, on the next slice where the device is cut. */
static void *echo(void *argument) {
    table_tennis *game = argument;
    pp_backend_seat seat = game->seat;
    if (seat.slices > 1) seat.slice++;
    game->echo_status = game->backend->open(&seat, &game->state[PONG], &game->echo_error);
    if (game->echo_status == PP_OK) {
        game->echo_status = send_back(game, &game->echo_error);
        game->backend->close(game->state[PONG]);
    }
    if (game->echo_status != PP_OK) ops->abort(game->transport);
    return NULL;
}

static pp_status round_trip(table_tennis *game, pp_error *error) {
    int slot;
    uint32_t number = game->message++;
    PP_TRY(hit(game, PING, number, error));
    PP_TRY(ops->receive(game->transport, PONG, number, TIMEOUT_S, &slot, error));
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
    pp_series_start(series, options, BUDGET_S / SIZES, least_s, PP_SAMPLE_S);
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
    if (game->echo_status == PP_OK) return status;
    if (error) *error = game->echo_error;
    return game->echo_status;
}

static void *new_block(const table_tennis *game) {
    void *block = game->backend->allocate(game->state[PING], (size_t)LARGEST_BYTES);
    if (block) game->backend->fill(game->state[PING], block, 0, (size_t)LARGEST_BYTES);
    return block;
}

static void drop_block(const table_tennis *game, void *block) {
    if (block) game->backend->release(game->state[PING], block, (size_t)LARGEST_BYTES);
}

static pp_status measure(table_tennis *game, const pp_measure_options *options, pp_error *error) {
    pp_channel_request channels[CHANNELS];
    pp_status status = PP_OK;
    for (int c = 0; c < CHANNELS; c++) {
        channels[c] = (pp_channel_request){.from_stage = c,
                                           .to_stage = 1 - c,
                                           .slot_count = SLOTS,
                                           .slot_bytes = (size_t)LARGEST_BYTES,
                                           .lane = c};
        game->ball[c] = new_block(game);
        if (!game->ball[c]) status = pp_fail_memory(error);
        for (int s = 0; s < SLOTS; s++) {
            game->slots[c][s] = new_block(game);
            if (!game->slots[c][s]) status = pp_fail_memory(error);
        }
    }
    pp_transport_setting setting = {.channels = channels, .channel_count = CHANNELS};
    if (status == PP_OK) status = game->backend->finish(game->state[PING], error);
    if (status == PP_OK) status = ops->open(&setting, &game->transport, error);
    if (status == PP_OK) {
        for (int c = 0; c < CHANNELS; c++)
            ops->attach(game->transport, c, game->slots[c], NULL, NULL);
        status = play(game, options, error);
    }
    ops->close(game->transport);
    for (int c = 0; c < CHANNELS; c++) {
        drop_block(game, game->ball[c]);
        for (int s = 0; s < SLOTS; s++) drop_block(game, game->slots[c][s]);
    }
    return status;
}

pp_status pp_measure_links(const pp_measure_options *options, const pp_backend *backend,
                           const pp_backend_seat *seat, pp_error *error) {
    table_tennis game = {.backend = backend, .seat = *seat};
    PP_TRY(backend->open(seat, &game.state[PING], error));
    pp_status status = measure(&game, options, error);
    backend->close(game.state[PING]);
    return status;
}
