#include "kept.h"

#include <pthread.h>
#include <stdlib.h>

#include "arena.h"

typedef struct entry {
    rp_kept_key key;
    enum { EMPTY, FILLING, FULL } state;
    uint32_t *words;
} entry;

/* Devices that compute beside each other may share one. */
struct rp_kept {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    const float *values;
    int64_t count;
    int64_t version;
    int64_t entries, capacity;
    entry *table;
};

static bool is_same(const rp_kept_key *a, const rp_kept_key *b) {
    return a->operand == b->operand && a->n == b->n && a->k == b->k && a->step == b->step && a->how == b->how;
}

static void clear(rp_kept *kept) {
    for (int64_t i = 0; i < kept->entries; i++) rp_aligned_free(kept->table[i].words);
    free(kept->table);
    kept->table = NULL;
    kept->entries = kept->capacity = 0;
}

static rp_status open_kept(rp_kept **out) {
    if (*out != NULL) return RP_OK;
    rp_kept *kept = calloc(1, sizeof *kept);
    if (kept == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a list of packed weights");
    pthread_mutex_init(&kept->lock, NULL);
    pthread_cond_init(&kept->filled, NULL);
    *out = kept;
    return RP_OK;
}

static void close_kept(rp_kept *kept) {
    if (kept == NULL) return;
    clear(kept);
    pthread_cond_destroy(&kept->filled);
    pthread_mutex_destroy(&kept->lock);
    free(kept);
}

rp_status rp_kept_weights(rp_dev *dev, const float *values, int64_t count, int64_t version) {
    if (values == NULL) {
        close_kept(dev->kept);
        dev->kept = NULL;
        return RP_OK;
    }
    RP_TRY(open_kept(&dev->kept));
    rp_kept *kept = dev->kept;
    if (kept->values == values && kept->count == count && kept->version == version) return RP_OK;
    if (kept->values != values || kept->count != count) clear(kept);
    kept->values = values;
    kept->count = count;
    kept->version = version;
    for (int64_t i = 0; i < kept->entries; i++) kept->table[i].state = EMPTY;
    return RP_OK;
}

static entry *entry_of(const rp_kept *kept, const rp_kept_key *key) {
    for (int64_t i = 0; i < kept->entries; i++)
        if (is_same(&kept->table[i].key, key)) return &kept->table[i];
    return NULL;
}

static rp_status grow(rp_kept *kept) {
    if (kept->entries < kept->capacity) return RP_OK;
    int64_t capacity = kept->capacity > 0 ? 2 * kept->capacity : 64;
    entry *table = realloc(kept->table, (size_t)capacity * sizeof *table);
    if (table == NULL)
        return rp_fail(RP_STATUS_MEMORY, "no memory for a list of %lld packed weights", (long long)capacity);
    kept->table = table;
    kept->capacity = capacity;
    return RP_OK;
}

static rp_status add(entry **out, rp_kept *kept, const rp_kept_key *key, int64_t words) {
    RP_TRY(grow(kept));
    uint32_t *memory = rp_aligned_alloc((size_t)words * sizeof *memory);
    if (memory == NULL)
        return rp_fail(RP_STATUS_MEMORY, "no memory for %lld bytes of packed weights",
                       (long long)words * (long long)sizeof *memory);
    *out = &kept->table[kept->entries++];
    **out = (entry){.key = *key, .words = memory};
    return RP_OK;
}

/* Under the lock. */
static rp_status find(uint32_t **out, bool *ready, rp_kept *kept, const rp_kept_key *key, int64_t words) {
    entry *found = entry_of(kept, key);
    if (found == NULL) RP_TRY(add(&found, kept, key, words));
    for (; found->state == FILLING; found = entry_of(kept, key)) pthread_cond_wait(&kept->filled, &kept->lock);
    *ready = found->state == FULL;
    found->state = *ready ? FULL : FILLING;
    *out = found->words;
    return RP_OK;
}

rp_status rp_kept_find(uint32_t **out, bool *ready, rp_dev *dev, const rp_kept_key *key, int64_t words) {
    rp_kept *kept = dev->kept;
    *out = NULL;
    *ready = false;
    if (kept == NULL || key->operand < kept->values || key->operand >= kept->values + kept->count) return RP_OK;
    pthread_mutex_lock(&kept->lock);
    rp_status status = find(out, ready, kept, key, words);
    pthread_mutex_unlock(&kept->lock);
    return status;
}

void rp_kept_fill(rp_dev *dev, const rp_kept_key *key) {
    rp_kept *kept = dev->kept;
    pthread_mutex_lock(&kept->lock);
    entry_of(kept, key)->state = FULL;
    pthread_cond_broadcast(&kept->filled);
    pthread_mutex_unlock(&kept->lock);
}
