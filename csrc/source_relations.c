#include <inttypes.h>
#include <math.h>

#include "rng.h"
#include "source.h"

/* -- what can be drawn ----------------------------------------------------------------------------------- */

static bool has_two_texts(const rp_corpus *corpus, int32_t relation) {
    int64_t start = corpus->relation_start[relation], end = corpus->relation_start[relation + 1];
    for (int64_t i = start + 1; i < end; i++)
        if (corpus->text_hash[corpus->relation_rows[i]] != corpus->text_hash[corpus->relation_rows[start]]) return true;
    return false;
}

static bool has_one_pair(const rp_corpus *corpus, int32_t relation) {
    int64_t start = corpus->relation_start[relation], end = corpus->relation_start[relation + 1];
    for (int64_t i = start + 1; i < end; i++)
        if (!rp_rows_same_pair(corpus, corpus->relation_rows[start], corpus->relation_rows[i])) return false;
    return true;
}

static int64_t count_of(const rp_corpus *corpus, int32_t relation) {
    return corpus->relation_start[relation + 1] - corpus->relation_start[relation];
}

void rp_relations_plan(rp_relations *s, rp_arena *arena, const rp_corpus *corpus) {
    size_t n = (size_t)corpus->a.n_relations; /* n_drawable is not known yet */
    s->drawable = rp_arena_take(arena, n, sizeof *s->drawable);
    s->weight = rp_arena_take(arena, n, sizeof *s->weight);
    s->cumulative = rp_arena_take(arena, n, sizeof *s->cumulative);
    s->one_pair = rp_arena_take(arena, n, sizeof *s->one_pair);
    s->can_draw = rp_arena_take(arena, n, sizeof *s->can_draw);
}

rp_status rp_relations_fill(rp_relations *s, const rp_corpus *corpus, const rp_source_options *o,
                            rp_source_counts *counts) {
    int64_t largest = 0;
    s->n_drawable = 0;
    for (int32_t r = 0; r < corpus->a.n_relations; r++) {
        s->can_draw[r] = has_two_texts(corpus, r);
        if (!s->can_draw[r]) {
            counts->left_out += count_of(corpus, r);
            continue;
        }
        s->one_pair[s->n_drawable] = has_one_pair(corpus, r);
        s->drawable[s->n_drawable++] = r;
        if (count_of(corpus, r) > largest) largest = count_of(corpus, r);
    }
    if (s->n_drawable == 0)
        return rp_fail(RP_STATUS_VALUE,
                       "no pair left: none of the %" PRId32 " relations has two different sentences (%" PRId64
                       " rows); a relation needs at least two to be trained on",
                       corpus->a.n_relations, corpus->a.n);
    double sum = 0;
    for (int32_t e = 0; e < s->n_drawable; e++) {
        s->weight[e] = pow((double)count_of(corpus, s->drawable[e]) / (double)largest, o->relation_exponent);
        s->cumulative[e] = sum += s->weight[e];
    }
    counts->drawable = s->n_drawable;
    return RP_OK;
}

/* -- relations of a step --------------------------------------------------------------------------------- */

/* Entry drawn in proportion to the weights: the first whose cumulative sum exceeds u * total. */
static int32_t draw_entry(const rp_relations *s, uint32_t step, uint32_t pair) {
    rp_rng rng = rp_rng_stream(s->relation_key, step, pair, 0);
    double at = rp_rng_unit(&rng) * s->cumulative[s->n_drawable - 1];
    int32_t low = 0, high = s->n_drawable - 1;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (s->cumulative[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool is_earlier(const rp_ticket *a, const rp_ticket *b) {
    return a->time < b->time || (a->time == b->time && a->entry < b->entry);
}

static void sift_down(rp_ticket *heap, int32_t n, int32_t at) {
    rp_ticket item = heap[at];
    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && is_earlier(&heap[child + 1], &heap[child])) child++;
        if (!is_earlier(&heap[child], &item)) break;
        heap[at] = heap[child];
    }
    heap[at] = item;
}

/* A round of successive sampling without replacement: entry e gets an exponential arrival time of rate weight[e], and
 * the order of arrival is that of successive draws (Efraimidis and Spirakis, "Weighted random sampling with a
 * reservoir", 2006). So a round depends on (seed, step, round) alone, and costs its relations once, however skewed they
 * are. */
static void open_round(const rp_relations *s, rp_ticket *heap, uint32_t step, uint32_t round) {
    for (int32_t e = 0; e < s->n_drawable; e++) {
        rp_rng rng = rp_rng_stream(s->round_key, step, round, (uint32_t)e);
        heap[e] = (rp_ticket){.time = -log(1 - rp_rng_unit(&rng)) / s->weight[e], .entry = e};
    }
    for (int32_t at = s->n_drawable / 2; at-- > 0;) sift_down(heap, s->n_drawable, at);
}

/* The earliest of the heap's `left` tickets, taken out. */
static int32_t next_of_round(rp_ticket *heap, int32_t left) {
    int32_t entry = heap[0].entry;
    heap[0] = heap[left - 1];
    if (left > 1) sift_down(heap, left - 1, 0);
    return entry;
}

/* -- rows of a pair -------------------------------------------------------------------------------------- */

/* The first row from `from` on, round the relation, that has another text and (when `pairs_differ`) another entity pair
 * than `row`; without such a one, the first with another text; -1 without that. */
static int64_t search_partner(const rp_corpus *corpus, const int64_t *rows, int64_t count, int64_t row, int64_t from,
                              bool pairs_differ) {
    int64_t fallback = -1;
    for (int64_t i = 0; i < count; i++) {
        int64_t other = rows[from + i < count ? from + i : from + i - count];
        if (rp_rows_same_text(corpus, row, other)) continue;
        if (!pairs_differ || !rp_rows_same_pair(corpus, row, other)) return other;
        if (fallback < 0) fallback = other;
    }
    return fallback;
}

/* rows[0] is uniform over the relation's rows; rows[1] uniform over its possible partners while the tries last. A
 * drawable relation has two different texts, so that every first row has a partner. */
static void draw_rows(const rp_relations *s, const rp_corpus *corpus, int32_t entry, uint32_t step, uint32_t pair,
                      int64_t rows[2]) {
    const int64_t *all = corpus->relation_rows + corpus->relation_start[s->drawable[entry]];
    int64_t count = count_of(corpus, s->drawable[entry]);
    bool pairs_differ = !s->one_pair[entry];
    rp_rng rng = rp_rng_stream(s->rows_key, step, pair, 0);
    rows[0] = all[rp_rng_below(&rng, (uint32_t)count)];
    for (int i = 0; i < RP_ROW_TRIES; i++) {
        rows[1] = all[rp_rng_below(&rng, (uint32_t)count)];
        if (!rp_rows_same_text(corpus, rows[0], rows[1]) &&
            !(pairs_differ && rp_rows_same_pair(corpus, rows[0], rows[1])))
            return;
    }
    rows[1] = search_partner(corpus, all, count, rows[0], rp_rng_below(&rng, (uint32_t)count), pairs_differ);
}

/* -- a step ---------------------------------------------------------------------------------------------- */

void rp_relations_draw(const rp_relations *s, const rp_corpus *corpus, const rp_source_options *o, uint32_t step,
                       rp_draw *out, rp_ticket *tickets) {
    int32_t left = 0, entry = 0;
    uint32_t round = 0;
    for (int32_t pair = 0; pair < o->count; pair++) {
        int64_t rows[2];
        if (pair % o->pairs_per_relation != 0) {
            /* the relation of the pair before */
        } else if (o->distinct_relations) {
            if (left == 0) {
                open_round(s, tickets, step, round++);
                left = s->n_drawable;
            }
            entry = next_of_round(tickets, left--);
        } else {
            entry = draw_entry(s, step, (uint32_t)(pair / o->pairs_per_relation));
        }
        draw_rows(s, corpus, entry, step, (uint32_t)pair, rows);
        out[2 * pair] = (rp_draw){rows[0], -1};
        out[2 * pair + 1] = (rp_draw){rows[1], -1};
    }
}
