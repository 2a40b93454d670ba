#include "corpus.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"

static rp_status check_sizes(const rp_corpus_arrays *a) {
    if (a->n < 0 || a->n_ids < 0 || a->n_types < 0 || a->n_type_ids < 0)
        return rp_fail(RP_STATUS_VALUE,
                       "corpus: a size is negative (n %" PRId64 ", n_ids %" PRId64 ", n_types %" PRId32
                       ", n_type_ids %" PRId64 ")",
                       a->n, a->n_ids, a->n_types, a->n_type_ids);
    if (a->n_relations < 1)
        return rp_fail(RP_STATUS_VALUE, "n_relations is %" PRId32 "; expected at least 1", a->n_relations);
    if (a->vocab_size < 1)
        return rp_fail(RP_STATUS_VALUE, "vocab_size is %" PRId32 "; expected at least 1", a->vocab_size);
    return RP_OK;
}

/* offsets(n+1) from 0 to `total`, never falling; `row` and `field` are the names used in the message. */
static rp_status check_offsets(const int64_t *offsets, int64_t n, int64_t total, const char *row, const char *field) {
    if (offsets[0] != 0)
        return rp_fail(RP_STATUS_VALUE, "%s 0: %s begins at %" PRId64 "; expected 0", row, field, offsets[0]);
    for (int64_t i = 0; i < n; i++)
        if (offsets[i + 1] < offsets[i] || offsets[i + 1] > total)
            return rp_fail(RP_STATUS_VALUE, "%s %" PRId64 ": %s ends at %" PRId64 "; expected %" PRId64 " .. %" PRId64,
                           row, i, field, offsets[i + 1], offsets[i], total);
    if (offsets[n] != total)
        return rp_fail(RP_STATUS_VALUE, "%s ends at %" PRId64 "; expected the %" PRId64 " word pieces given", field,
                       offsets[n], total);
    return RP_OK;
}

/* Every number of ids is below `most`, which messages call `size`. */
static rp_status check_ids(const int32_t *ids, const int64_t *offsets, int64_t n, int32_t most, const char *size,
                           const char *row, const char *field) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = offsets[i]; j < offsets[i + 1]; j++)
            if (ids[j] < 0 || ids[j] >= most)
                return rp_fail(RP_STATUS_VALUE,
                               "%s %" PRId64 ": %s[%" PRId64 "] is %" PRId32 "; expected 0 .. %" PRId32
                               " (%s is %" PRId32 ")",
                               row, i, field, j - offsets[i], ids[j], most - 1, size, most);
    return RP_OK;
}

static rp_status check_span(const int32_t *span, int64_t length, int64_t row) {
    for (int side = 0; side < 2; side++) {
        int32_t start = span[2 * side], end = span[2 * side + 1];
        if (start < 0 || start >= end || end > length)
            return rp_fail(RP_STATUS_VALUE,
                           "row %" PRId64 ": spans: the %s is [%" PRId32 ", %" PRId32 "); expected "
                           "0 <= start < end <= %" PRId64 ", the sentence's word pieces",
                           row, side ? "tail" : "head", start, end, length);
    }
    if (span[0] < span[3] && span[2] < span[1])
        return rp_fail(RP_STATUS_VALUE,
                       "row %" PRId64 ": spans: the head [%" PRId32 ", %" PRId32 ") and the tail [%" PRId32 ", %" PRId32
                       ") overlap; expected two mentions apart",
                       row, span[0], span[1], span[2], span[3]);
    return RP_OK;
}

static rp_status check_number(int32_t value, int32_t low, int32_t high, int64_t row, const char *field) {
    if (value >= low && value <= high) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "row %" PRId64 ": %s is %" PRId32 "; expected %" PRId32 " .. %" PRId32, row, field,
                   value, low, high);
}

static rp_status check_rows(const rp_corpus_arrays *a) {
    for (int64_t i = 0; i < a->n; i++) {
        RP_TRY(check_span(a->spans + 4 * i, a->offsets[i + 1] - a->offsets[i], i));
        RP_TRY(check_number(a->relation[i], 0, a->n_relations - 1, i, "relation"));
        RP_TRY(check_number(a->head_id[i], -1, INT32_MAX, i, "head_id"));
        RP_TRY(check_number(a->tail_id[i], -1, INT32_MAX, i, "tail_id"));
        RP_TRY(check_number(a->head_type[i], -1, a->n_types - 1, i, "head_type"));
        RP_TRY(check_number(a->tail_type[i], -1, a->n_types - 1, i, "tail_type"));
    }
    return RP_OK;
}

static rp_status check_types(const rp_corpus_arrays *a) {
    RP_TRY(check_offsets(a->type_offsets, a->n_types, a->n_type_ids, "type", "type_offsets"));
    RP_TRY(check_ids(a->type_ids, a->type_offsets, a->n_types, a->vocab_size, "vocab_size", "type", "type_ids"));
    for (int32_t i = 0; i < a->n_types; i++)
        if (a->type_offsets[i] == a->type_offsets[i + 1])
            return rp_fail(RP_STATUS_VALUE,
                           "type %" PRId32 ": type_offsets: its name has no word pieces; expected at least 1", i);
    return RP_OK;
}

static rp_status check_tags(const rp_corpus_arrays *a) {
    static const char *const names[RP_TAGS] = {"pos_tag", "ner_tag"}, *const sizes[RP_TAGS] = {"n_pos", "n_ner"};
    for (int k = 0; k < RP_TAGS; k++)
        if (a->tags[k] != NULL)
            RP_TRY(check_ids(a->tags[k], a->offsets, a->n, a->n_tags[k], sizes[k], "row", names[k]));
    return RP_OK;
}

static rp_status check_arrays(const rp_corpus_arrays *a) {
    RP_TRY(check_sizes(a));
    RP_TRY(check_offsets(a->offsets, a->n, a->n_ids, "row", "offsets"));
    RP_TRY(check_ids(a->ids, a->offsets, a->n, a->vocab_size, "vocab_size", "row", "ids"));
    RP_TRY(check_types(a));
    RP_TRY(check_tags(a));
    return check_rows(a);
}

/* SplitMix64's finalizer, chained over the ids; begins with the length. */
static uint64_t hash_ids(const int32_t *ids, int64_t length) {
    uint64_t hash = (uint64_t)length;
    for (int64_t i = 0; i < length; i++) {
        hash = (hash + 0x9E3779B97F4A7C15u) ^ (uint32_t)ids[i];
        hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9u;
        hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBu;
        hash ^= hash >> 31;
    }
    return hash;
}

static int64_t longest_of(const int64_t *offsets, int64_t n) {
    int64_t longest = 0;
    for (int64_t i = 0; i < n; i++)
        if (offsets[i + 1] - offsets[i] > longest) longest = offsets[i + 1] - offsets[i];
    return longest;
}

static void take_arrays(rp_corpus *corpus, rp_arena *arena) {
    corpus->relation_start = rp_arena_take(arena, (size_t)corpus->a.n_relations + 1, sizeof(int64_t));
    corpus->relation_rows = rp_arena_take(arena, (size_t)corpus->a.n, sizeof(int64_t));
    corpus->text_hash = rp_arena_take(arena, (size_t)corpus->a.n, sizeof(uint64_t));
}

/* Rows by relation: a counting sort, stable. start[r + 1] serves as the cursor of relation r, and ends as its end. */
static void index_relations(rp_corpus *corpus) {
    int64_t *start = corpus->relation_start, n = corpus->a.n, relations = corpus->a.n_relations;
    memset(start, 0, ((size_t)relations + 1) * sizeof *start);
    for (int64_t i = 0; i < n; i++)
        if (corpus->a.relation[i] + 1 < relations) start[corpus->a.relation[i] + 2]++;
    for (int64_t r = 2; r <= relations; r++) start[r] += start[r - 1];
    for (int64_t i = 0; i < n; i++) corpus->relation_rows[start[corpus->a.relation[i] + 1]++] = i;
}

rp_status rp_corpus_new(rp_corpus **out, const rp_corpus_arrays *arrays) {
    *out = NULL;
    RP_TRY(check_arrays(arrays));
    rp_corpus *corpus = calloc(1, sizeof *corpus);
    if (corpus == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a corpus");
    corpus->a = *arrays;
    rp_arena arena = {0};
    take_arrays(corpus, &arena);
    rp_status status = rp_arena_check(&arena);
    if (status != RP_OK) goto done;
    corpus->memory = arena.base = rp_aligned_alloc(arena.used);
    if (corpus->memory == NULL) {
        status = rp_fail(RP_STATUS_MEMORY, "no memory for the index of %" PRId64 " sentences (%zu bytes)", arrays->n,
                         arena.used);
        goto done;
    }
    arena.capacity = arena.used;
    arena.used = 0;
    take_arrays(corpus, &arena);
    index_relations(corpus);
    for (int64_t i = 0; i < arrays->n; i++)
        corpus->text_hash[i] = hash_ids(arrays->ids + arrays->offsets[i], arrays->offsets[i + 1] - arrays->offsets[i]);
    corpus->longest = longest_of(arrays->offsets, arrays->n);
    corpus->longest_type = longest_of(arrays->type_offsets, arrays->n_types);
done:
    if (status != RP_OK)
        rp_corpus_free(corpus);
    else
        *out = corpus;
    return status;
}

void rp_corpus_free(rp_corpus *corpus) {
    if (corpus == NULL) return;
    rp_aligned_free(corpus->memory);
    free(corpus);
}
