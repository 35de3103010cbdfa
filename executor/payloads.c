/* Memory of letters: from the host's allocator, or, while a run's backend has a faster kind (pinned
 * memory), from there. That kind is costly to get, so its blocks are kept for the next letter of
 * the same size until the run ends. Freed payloads read as NaN where debugging (promise P9). */
#include "executor/backend.h"
#include "executor/processes_internal.h"

#include <string.h>

enum { HEAD_BYTES = 64 }; /* keeps payloads aligned as the allocator's blocks are */

#ifdef NDEBUG
static const bool poison = false;
#else
static const bool poison = true;
#endif

/* Before each payload. */
struct pp_payload_head {
    pp_payload_head *next; /* in the pool */
    size_t size_bytes;
    void (*release)(void *block); /* NULL: the host's */
};
_Static_assert(sizeof(struct pp_payload_head) <= HEAD_BYTES, "the head fits before the payload");

static pp_payload_head *take_pooled(pp_processes *processes, size_t size_bytes) {
    pthread_mutex_lock(&processes->pool_mutex);
    pp_payload_head **at = &processes->pool;
    while (*at && (*at)->size_bytes != size_bytes) at = &(*at)->next;
    pp_payload_head *found = *at;
    if (found) *at = found->next;
    pthread_mutex_unlock(&processes->pool_mutex);
    return found;
}

static pp_payload_head *make(pp_processes *processes, size_t size_bytes) {
    pthread_mutex_lock(&processes->pool_mutex);
    const pp_backend *backend = processes->pinned;
    pthread_mutex_unlock(&processes->pool_mutex);
    if (size_bytes > SIZE_MAX - HEAD_BYTES) return NULL;
    void *block = backend ? backend->host_allocate(size_bytes + HEAD_BYTES)
                          : pp_allocate(size_bytes + HEAD_BYTES);
    if (!block) return NULL;
    pp_payload_head *head = block;
    *head = (pp_payload_head){.size_bytes = size_bytes,
                              .release = backend ? backend->host_release : NULL};
    return head;
}

void *pp_payload_new(pp_processes *processes, size_t size_bytes) {
    pp_payload_head *head = take_pooled(processes, size_bytes);
    if (!head) head = make(processes, size_bytes);
    return head ? (unsigned char *)head + HEAD_BYTES : NULL;
}

static void release(pp_payload_head *head) {
    if (head->release)
        head->release(head);
    else
        pp_free(head);
}

void pp_payload_free(pp_processes *processes, void *payload) {
    if (!payload) return;
    pp_payload_head *head = (pp_payload_head *)((unsigned char *)payload - HEAD_BYTES);
    if (poison) memset(payload, 0xff, head->size_bytes);
    pthread_mutex_lock(&processes->pool_mutex);
    bool pooled = head->release && processes->pinned;
    if (pooled) {
        head->next = processes->pool;
        processes->pool = head;
    }
    pthread_mutex_unlock(&processes->pool_mutex);
    if (!pooled) release(head);
}

void pp_payloads_pin(pp_processes *processes, const pp_backend *backend) {
    pthread_mutex_lock(&processes->pool_mutex);
    processes->pinned = backend && backend->host_allocate ? backend : NULL;
    pp_payload_head *pool = processes->pinned ? NULL : processes->pool;
    if (!processes->pinned) processes->pool = NULL;
    pthread_mutex_unlock(&processes->pool_mutex);
    while (pool) {
        pp_payload_head *next = pool->next;
        release(pool);
        pool = next;
    }
}
