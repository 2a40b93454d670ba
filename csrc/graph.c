#include "graph.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "rng.h"

/* -- the index of answers -------------------------------------------------------------------------------- */

typedef struct keyed {
    int64_t key;
    int32_t answer;
} keyed;

static int by_key(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->answer > y->answer) - (x->answer < y->answer);
}

rp_query rp_graph_query(const int32_t triple[3], rp_side side) {
    rp_query query = {.side = side, .anchor = triple[2], .relation = triple[1], .answer = triple[0]};
    if (side == RP_SIDE_TAIL) {
        query.anchor = triple[0];
        query.answer = triple[2];
    }
    return query;
}

static int64_t key_of(const rp_graph *g, const rp_query *query) {
    return query->anchor * g->n_relations + query->relation;
}

/* Fills the index from sorted pairs, and leaves out repeated ones. */
static void fill_answers(rp_answers *a, const keyed *pair, int64_t n) {
    int64_t used = 0;
    for (int64_t i = 0; i < n; i++) {
        bool same_query = i > 0 && pair[i].key == pair[i - 1].key;
        if (same_query && pair[i].answer == pair[i - 1].answer) continue;
        if (!same_query) {
            a->key[a->queries] = pair[i].key;
            a->start[a->queries++] = used;
        }
        a->answer[used++] = pair[i].answer;
    }
    a->start[a->queries] = used;
    for (int64_t q = 0; q < a->queries; q++)
        if (a->start[q + 1] - a->start[q] > a->longest) a->longest = a->start[q + 1] - a->start[q];
}

static rp_status index_side(rp_graph *g, rp_side side, keyed *pair) {
    rp_answers *a = &g->answers[side];
    a->key = rp_aligned_alloc((size_t)g->n * sizeof *a->key);
    a->start = rp_aligned_alloc((size_t)(g->n + 1) * sizeof *a->start);
    a->answer = rp_aligned_alloc((size_t)g->n * sizeof *a->answer);
    if (a->key == NULL || a->start == NULL || a->answer == NULL)
        return rp_fail(RP_STATUS_MEMORY, "no memory for the index of %" PRId64 " triples", g->n);
    for (int64_t i = 0; i < g->n; i++) {
        rp_query query = rp_graph_query(g->triple + 3 * i, side);
        pair[i] = (keyed){key_of(g, &query), query.answer};
    }
    qsort(pair, (size_t)g->n, sizeof *pair, by_key);
    fill_answers(a, pair, g->n);
    return RP_OK;
}

/* How many different queries ask for this side of each relation: for its heads, as many as it has tails. */
static void count_queries(double *count, const rp_graph *g, rp_side side) {
    const rp_answers *a = &g->answers[side];
    memset(count, 0, (size_t)g->n_relations * sizeof *count);
    for (int64_t q = 0; q < a->queries; q++) count[a->key[q] % g->n_relations]++;
}

/* tph / (tph + hpt): with n triples, H heads and T tails of a relation, (n / H) / (n / H + n / T) = T / (T + H). */
static rp_status fill_head_share(rp_graph *g) {
    double *heads = rp_aligned_alloc((size_t)g->n_relations * sizeof *heads), *tails;
    tails = g->head_share = rp_aligned_alloc((size_t)g->n_relations * sizeof *g->head_share);
    if (heads == NULL || tails == NULL) {
        rp_aligned_free(heads);
        return rp_fail(RP_STATUS_MEMORY, "no memory for %" PRId64 " relations", g->n_relations);
    }
    count_queries(tails, g, RP_SIDE_HEAD);
    count_queries(heads, g, RP_SIDE_TAIL);
    for (int64_t r = 0; r < g->n_relations; r++)
        g->head_share[r] = heads[r] > 0 ? tails[r] / (tails[r] + heads[r]) : 0.5;
    rp_aligned_free(heads);
    return RP_OK;
}

static rp_status check_triples(const int32_t *triple, int64_t n, int64_t n_entities, int64_t n_relations) {
    if (n < 0 || n > UINT32_MAX)
        return rp_fail(RP_STATUS_VALUE, "there are %" PRId64 " triples; expected 0 .. %" PRIu32, n, UINT32_MAX);
    if (n_entities < 1 || n_entities > INT32_MAX || n_relations < 1 || n_relations > INT32_MAX)
        return rp_fail(RP_STATUS_VALUE,
                       "there are %" PRId64 " entities and %" PRId64 " relations; expected 1 .. %" PRId32 " of each",
                       n_entities, n_relations, INT32_MAX);
    static const char *const names[] = {"head", "relation", "tail"};
    for (int64_t i = 0; i < 3 * n; i++) {
        int64_t end = i % 3 == 1 ? n_relations : n_entities;
        if (triple[i] < 0 || triple[i] >= end)
            return rp_fail(RP_STATUS_VALUE, "triple %" PRId64 ": %s is %" PRId32 "; expected 0 .. %" PRId64, i / 3,
                           names[i % 3], triple[i], end - 1);
    }
    return RP_OK;
}

static rp_status build(rp_graph *g, const int32_t *triple) {
    g->triple = rp_aligned_alloc(3 * (size_t)g->n * sizeof *g->triple);
    keyed *pair = rp_aligned_alloc((size_t)g->n * sizeof *pair);
    rp_status status = RP_OK;
    if (g->triple == NULL || pair == NULL) {
        status = rp_fail(RP_STATUS_MEMORY, "no memory for %" PRId64 " triples", g->n);
    } else {
        if (g->n > 0) memcpy(g->triple, triple, 3 * (size_t)g->n * sizeof *g->triple);
        status = index_side(g, RP_SIDE_HEAD, pair);
        if (status == RP_OK) status = index_side(g, RP_SIDE_TAIL, pair);
    }
    rp_aligned_free(pair);
    return status == RP_OK ? fill_head_share(g) : status;
}

rp_status rp_graph_new(rp_graph **out, const int32_t *triple, int64_t n, int64_t n_entities, int64_t n_relations) {
    *out = NULL;
    RP_TRY(check_triples(triple, n, n_entities, n_relations));
    rp_graph *g = calloc(1, sizeof *g);
    if (g == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a graph");
    *g = (rp_graph){.n = n, .n_entities = n_entities, .n_relations = n_relations};
    rp_status status = build(g, triple);
    if (status != RP_OK)
        rp_graph_free(g);
    else
        *out = g;
    return status;
}

void rp_graph_free(rp_graph *g) {
    if (g == NULL) return;
    for (int side = 0; side < 2; side++) {
        rp_aligned_free(g->answers[side].key);
        rp_aligned_free(g->answers[side].start);
        rp_aligned_free(g->answers[side].answer);
    }
    rp_aligned_free(g->head_share);
    rp_aligned_free(g->triple);
    free(g);
}

const int32_t *rp_graph_answers(const rp_graph *g, const rp_query *query, int64_t *count) {
    const rp_answers *a = &g->answers[query->side];
    int64_t key = key_of(g, query), low = 0, high = a->queries;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (a->key[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    *count = 0;
    if (low == a->queries || a->key[low] != key) return NULL;
    *count = a->start[low + 1] - a->start[low];
    return a->answer + a->start[low];
}

/* -- draws ----------------------------------------------------------------------------------------------- */

enum { SITE_CORRUPT, SITE_SHUFFLE }; /* of RP_PURPOSE_GRAPH */

rp_status rp_graph_check_corruption(const rp_graph *g, const rp_corruption *o) {
    if (o->negatives < 1 || o->negatives > INT32_MAX)
        return rp_fail(RP_STATUS_VALUE, "negatives is %" PRId64 "; expected 1 .. %" PRId32, o->negatives, INT32_MAX);
    if (g->n == 0) return rp_fail(RP_STATUS_VALUE, "the graph has no triples to train on; give at least one");
    for (int side = 0; side < 2; side++) {
        const rp_answers *a = &g->answers[side];
        int64_t most = o->filtered ? a->longest : 1, q = 0;
        if (most < g->n_entities) continue;
        while (o->filtered && a->start[q + 1] - a->start[q] < most) q++;
        return rp_fail(RP_STATUS_VALUE,
                       "no wrong %s can be drawn: all %" PRId64 " entities answer entity %" PRId64
                       " with relation %" PRId64 "; leave the relation out, or draw without filtering",
                       side == RP_SIDE_HEAD ? "head" : "tail", g->n_entities, a->key[q] / g->n_relations,
                       a->key[q] % g->n_relations);
    }
    return RP_OK;
}

/* The number-th entity that is not among the ascending `known`. */
static int32_t unknown_entity(const int32_t *known, int64_t count, uint32_t number) {
    int64_t low = 0, high = count; /* how many of known stand before it */
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (known[middle] - middle <= number)
            low = middle + 1;
        else
            high = middle;
    }
    return (int32_t)(number + low);
}

rp_query rp_graph_corrupt(const rp_graph *g, const rp_corruption *o, int64_t epoch, int64_t i, int32_t *candidate) {
    uint64_t key = rp_rng_key(o->seed, RP_PURPOSE_GRAPH, SITE_CORRUPT);
    rp_rng rng = rp_rng_stream(key, (uint32_t)epoch, (uint32_t)i, 0);
    const int32_t *triple = g->triple + 3 * i;
    double head_share = o->bernoulli ? g->head_share[triple[1]] : 0.5;
    rp_query query = rp_graph_query(triple, rp_rng_unit(&rng) < head_share ? RP_SIDE_HEAD : RP_SIDE_TAIL);
    int64_t count = 1;
    const int32_t *known = o->filtered ? rp_graph_answers(g, &query, &count) : &query.answer;
    candidate[0] = query.answer;
    for (int64_t k = 1; k <= o->negatives; k++)
        candidate[k] = unknown_entity(known, count, rp_rng_below(&rng, (uint32_t)(g->n_entities - count)));
    return query;
}

/* Fisher and Yates. */
void rp_graph_shuffle(const rp_graph *g, uint64_t seed, int64_t epoch, uint32_t *order) {
    rp_rng rng = rp_rng_stream(rp_rng_key(seed, RP_PURPOSE_GRAPH, SITE_SHUFFLE), (uint32_t)epoch, 0, 0);
    for (int64_t i = 0; i < g->n; i++) {
        uint32_t j = rp_rng_below(&rng, (uint32_t)(i + 1));
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
}
