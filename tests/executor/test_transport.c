/* The local transport, from one thread: slots, early messages, the emulated link. What threads do
 * with it is tested by whole runs. */
#include "executor/transport.h"
#include "tests/live_bytes.h"

#include <criterion/criterion.h>
#include <math.h>

static const pp_transport_ops *const ops = &pp_transport_local;

COUNTED_SUITE(transport);

enum { SLOTS = 3, SLOT_BYTES = 64 };
static unsigned char memory[SLOTS][SLOT_BYTES];

static pp_transport *open_one(void) {
    pp_channel_request request = {.to_stage = 1, .slot_count = SLOTS, .slot_bytes = SLOT_BYTES};
    pp_transport *transport;
    cr_assert_eq(ops->open(&(pp_transport_setting){.channels = &request, .channel_count = 1}, &transport, NULL), PP_OK);
    void *slots[SLOTS] = {memory[0], memory[1], memory[2]};
    ops->attach(transport, 0, slots, NULL, NULL);
    return transport;
}

static void send_text(pp_transport *transport, uint32_t microbatch, const char *text) {
    cr_assert_eq(ops->send(transport, 0, microbatch, text, strlen(text) + 1, NULL), PP_OK);
}

static const char *receive_text(pp_transport *transport, uint32_t microbatch, int *slot) {
    cr_assert_eq(ops->receive(transport, 0, microbatch, 0, slot, NULL), PP_OK);
    return (const char *)memory[*slot];
}

Test(transport, copies_into_the_receivers_slot) {
    pp_transport *transport = open_one();
    char text[] = "first";
    send_text(transport, 0, text);
    text[0] = 'X'; /* the sender may use its memory again at once */
    int slot;
    cr_assert_str_eq(receive_text(transport, 0, &slot), "first");
    ops->release(transport, 0, slot);
    ops->close(transport);
}

Test(transport, early_messages_wait_in_their_slots) {
    pp_transport *transport = open_one();
    send_text(transport, 2, "two");
    send_text(transport, 0, "zero");
    send_text(transport, 1, "one");
    const char *const wanted[] = {"zero", "one", "two"};
    for (uint32_t m = 0; m < 3; m++) {
        int slot;
        cr_assert_str_eq(receive_text(transport, m, &slot), wanted[m]);
        ops->release(transport, 0, slot);
    }
    ops->close(transport);
}

Test(transport, slots_run_out_and_come_back) {
    pp_transport *transport = open_one();
    pp_error error = {.message = ""};
    for (uint32_t m = 0; m < SLOTS; m++) send_text(transport, m, "x");
    cr_assert_eq(ops->send(transport, 0, 9, "x", 2, &error), PP_E_FAILED);
    cr_assert(strstr(error.message, "no free slot"));
    int slot;
    (void)receive_text(transport, 1, &slot);
    cr_assert_eq(ops->send(transport, 0, 9, "x", 2, NULL), PP_E_FAILED,
                 "a received slot is not free yet");
    ops->release(transport, 0, slot);
    send_text(transport, 9, "nine");
    cr_assert_str_eq(receive_text(transport, 9, &slot), "nine");
    ops->close(transport);
}

Test(transport, gathers_parts) {
    pp_transport *transport = open_one();
    pp_message_part parts[] = {{"abc", 4, 0}, {"de", 3, 32}};
    pp_message message = {.microbatch = 5, .parts = parts, .part_count = 2};
    cr_assert_eq(ops->send_message(transport, 0, &message, NULL), PP_OK);
    int slot;
    cr_assert_str_eq(receive_text(transport, 5, &slot), "abc");
    cr_assert_str_eq((const char *)memory[slot] + 32, "de");
    ops->close(transport);
}

Test(transport, holds_back) {
    pp_transport *transport = open_one();
    pp_message_part part;
    pp_message message = pp_message_whole(&part, 3, "three", 6);
    message.held = true;
    cr_assert_eq(ops->send_message(transport, 0, &message, NULL), PP_OK);
    cr_assert_not(ops->poll(transport, 0, 3, 0));
    send_text(transport, 4, "four");
    int slot;
    cr_assert_str_eq(receive_text(transport, 4, &slot), "four");
    cr_assert_eq(ops->show(transport, 0, NULL), PP_OK);
    cr_assert_str_eq(receive_text(transport, 3, &slot), "three");
    ops->close(transport);
}

Test(transport, gives_up) {
    pp_transport *transport = open_one();
    pp_error error = {.message = ""};
    int slot;
    cr_assert_not(ops->poll(transport, 0, 0, 0.001));
    cr_assert_eq(ops->receive(transport, 0, 0, 0.001, &slot, &error), PP_E_FAILED);
    ops->abort(transport);
    ops->abort(transport);
    cr_assert_eq(ops->receive(transport, 0, 0, 1e9, &slot, &error), PP_E_INTERRUPTED);
    cr_assert_not(ops->poll(transport, 0, 0, 1e9));
    ops->close(transport);
}

static double arrival(pp_transport *transport, int channel, uint32_t microbatch, double sent_s,
                      size_t size_bytes) {
    pp_message message = {.microbatch = microbatch, .size_bytes = size_bytes, .sent_s = sent_s};
    cr_assert_eq(ops->send_message(transport, channel, &message, NULL), PP_OK);
    int slot;
    cr_assert_eq(ops->receive(transport, channel, microbatch, 0, &slot, NULL), PP_OK);
    double ready_s = ops->ready_s(transport, channel, slot);
    ops->release(transport, channel, slot);
    return ready_s;
}

/* Channels 0 and 1 share a pair of ranks; 2 goes elsewhere; 3 is free. 100 bytes/s, latency 0.5 s.
 */
Test(transport, emulated_links_queue_per_pair) {
    pp_link link = {.bandwidth_bytes_per_s = 100, .latency_s = 0.5};
    pp_link free_link = {.bandwidth_bytes_per_s = INFINITY};
    pp_channel_request requests[] = {
        {.slot_count = 2, .link = link, .emulate_link = true, .lane = 7},
        {.slot_count = 2, .link = link, .emulate_link = true, .lane = 7},
        {.slot_count = 2, .link = link, .emulate_link = true, .lane = 8},
        {.slot_count = 2, .link = free_link, .emulate_link = true, .lane = 9}};
    pp_transport *transport;
    cr_assert_eq(ops->open(&(pp_transport_setting){.channels = requests, .channel_count = 4}, &transport, NULL), PP_OK);
    const struct {
        int channel;
        uint32_t microbatch;
        double sent_s;
        size_t size_bytes;
        double arrives_s;
    } cases[] = {
        {0, 0, 10.0, 200, 12.5},  {1, 0, 11.0, 100, 13.5}, /* after the first, which leaves at 12 */
        {2, 0, 11.0, 100, 12.5},                           /* another pair */
        {0, 1, 20.0, 100, 21.5},                           /* the lane is free again */
        {3, 0, 11.0, 1000, 11.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double arrived_s = arrival(transport, cases[i].channel, cases[i].microbatch,
                                   cases[i].sent_s, cases[i].size_bytes);
        cr_assert_float_eq(arrived_s, cases[i].arrives_s, 1e-12, "case %zu: %g", i, arrived_s);
    }
    ops->close(transport);
}
