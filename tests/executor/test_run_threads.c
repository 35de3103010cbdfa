/* The bodies of threaded_cases.c under Criterion, one test each. */
#include "clip_cases.h"
#include "run_case.h"
#include "threaded_cases.h"

#include "core/core.h"
#include "tests/live_bytes.h"

COUNTED_SUITE(run_threads);
COUNTED_SUITE(clip, .timeout = 60);

#define CASE(name) RUN_CASE(run_threads, threaded_cases, name)

CASE(same_bits_gpt)
CASE(same_bits_graph)
CASE(same_bits_llama)
CASE(same_bits_bert)
CASE(same_bits_ties)
CASE(same_bits_mlp)
CASE(same_bits_virtual)
CASE(many_ranks)
CASE(other_microbatches)
CASE(replicas)
CASE(replicas_same_bits)
CASE(random_delays)
CASE(failures)
CASE(hangs)
CASE(stops)
CASE(peaks)
CASE(every_allocation)
CASE(replay_known_times)
CASE(replay_ties)
CASE(learns)

#undef CASE
#define CASE(name) RUN_CASE(clip, clip_cases, name)

CASE(clip_by_hand)
CASE(clip_same_bits)
CASE(clip_replicas)
CASE(clip_not_reached)
CASE(clip_replay)
