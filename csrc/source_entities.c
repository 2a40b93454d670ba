#include <inttypes.h>
#include <stdlib.h>

#include "rng.h"
#include "source.h"

/* -- the index ------------------------------------------------------------------------------------------- */

void rp_entities_plan(rp_entities *s, rp_arena *arena, const rp_corpus *corpus) {
    size_t n = (size_t)corpus->a.n;
    s->pair = rp_arena_take(arena, n, sizeof *s->pair);
    s->pair_start = rp_arena_take(arena, n + 1, sizeof *s->pair_start);
    s->pair_rows = rp_arena_take(arena, n, sizeof *s->pair_rows);
    s->anchors = rp_arena_take(arena, n, sizeof *s->anchors);
    s->hard = rp_arena_take(arena, n, sizeof *s->hard);
    s->mentions = rp_arena_take(arena, n, 2 * sizeof *s->mentions);
}

typedef struct keyed {
    int32_t head, tail;
    int64_t row;
} keyed;

static int by_pair(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    if (x->head != y->head) return x->head < y->head ? -1 : 1;
    if (x->tail != y->tail) return x->tail < y->tail ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static int by_entity(const void *a, const void *b) {
    const rp_mention *x = a, *y = b;
    if (x->entity != y->entity) return x->entity < y->entity ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* pair, pair_start, pair_rows, n_pairs. */
static rp_status index_pairs(rp_entities *s, const rp_corpus *corpus) {
    int64_t n = corpus->a.n, known = 0;
    keyed *sorted = malloc(((size_t)n + 1) * sizeof *sorted);
    if (sorted == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory to sort %" PRId64 " pairs of entities", n);
    for (int64_t row = 0; row < n; row++) {
        s->pair[row] = -1;
        if (rp_row_has_pair(corpus, row))
            sorted[known++] = (keyed){corpus->a.head_id[row], corpus->a.tail_id[row], row};
    }
    qsort(sorted, (size_t)known, sizeof *sorted, by_pair);
    s->n_pairs = 0;
    for (int64_t i = 0; i < known; i++) {
        if (i == 0 || sorted[i].head != sorted[i - 1].head || sorted[i].tail != sorted[i - 1].tail)
            s->pair_start[s->n_pairs++] = i;
        s->pair[sorted[i].row] = (int32_t)(s->n_pairs - 1);
        s->pair_rows[i] = sorted[i].row;
    }
    s->pair_start[s->n_pairs] = known;
    free(sorted);
    return RP_OK;
}

static void index_mentions(rp_entities *s, const rp_corpus *corpus) {
    s->n_mentions = 0;
    for (int64_t row = 0; row < corpus->a.n; row++) {
        int32_t head = corpus->a.head_id[row], tail = corpus->a.tail_id[row];
        if (!rp_row_has_pair(corpus, row)) continue;
        s->mentions[s->n_mentions++] = (rp_mention){head, row};
        if (tail != head) s->mentions[s->n_mentions++] = (rp_mention){tail, row};
    }
    qsort(s->mentions, (size_t)s->n_mentions, sizeof *s->mentions, by_entity);
}

/* The first mention of an entity that is not below `entity`. */
static int64_t first_mention(const rp_entities *s, int64_t entity) {
    int64_t low = 0, high = s->n_mentions;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (s->mentions[middle].entity < entity)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Exactly one of the entities of two rows is the same, in whichever role. */
static bool share_one(const rp_corpus *corpus, int64_t a, int64_t b) {
    int32_t h = corpus->a.head_id[a], t = corpus->a.tail_id[a], x = corpus->a.head_id[b], y = corpus->a.tail_id[b];
    bool head = h == x || h == y, tail = t == x || t == y;
    if (h == t) return head && x != y;
    return head != tail;
}

/* A row that shares exactly `entity` with `row`: the first from mention number `at` on, round the entity's; -1: none.
 */
static int64_t search_sharing(const rp_entities *s, const rp_corpus *corpus, int64_t row, int64_t first, int64_t count,
                              int64_t at) {
    for (int64_t i = 0; i < count; i++) {
        int64_t other = s->mentions[first + (at + i) % count].row;
        if (share_one(corpus, row, other)) return other;
    }
    return -1;
}

static bool has_sharing(const rp_entities *s, const rp_corpus *corpus, int64_t row, int32_t entity) {
    int64_t first = first_mention(s, entity), count = first_mention(s, (int64_t)entity + 1) - first;
    return search_sharing(s, corpus, row, first, count, 0) >= 0;
}

static bool has_two_texts(const rp_entities *s, const rp_corpus *corpus, int64_t pair) {
    const int64_t *rows = s->pair_rows;
    for (int64_t i = s->pair_start[pair] + 1; i < s->pair_start[pair + 1]; i++)
        if (!rp_rows_same_text(corpus, rows[i], rows[s->pair_start[pair]])) return true;
    return false;
}

/* anchors, hard; *drawable: the pairs of entities in two different sentences. A pair's rows have the same negatives. */
static void index_anchors(rp_entities *s, const rp_corpus *corpus, int64_t *drawable) {
    s->n_anchors = s->n_hard = 0;
    for (int64_t pair = 0; pair < s->n_pairs; pair++) {
        if (!has_two_texts(s, corpus, pair)) continue;
        ++*drawable;
        int64_t row = s->pair_rows[s->pair_start[pair]];
        bool hard =
            has_sharing(s, corpus, row, corpus->a.head_id[row]) || has_sharing(s, corpus, row, corpus->a.tail_id[row]);
        for (int64_t i = s->pair_start[pair]; i < s->pair_start[pair + 1]; i++) {
            s->anchors[s->n_anchors++] = s->pair_rows[i];
            if (hard) s->hard[s->n_hard++] = s->pair_rows[i];
        }
    }
}

rp_status rp_entities_fill(rp_entities *s, const rp_corpus *corpus, const rp_source_options *o,
                           rp_source_counts *counts) {
    RP_TRY(index_pairs(s, corpus));
    index_mentions(s, corpus);
    index_anchors(s, corpus, &counts->drawable);
    int64_t known = s->pair_start[s->n_pairs], most = 0;
    for (int64_t pair = 0; pair < s->n_pairs; pair++)
        if (s->pair_start[pair + 1] - s->pair_start[pair] > most) most = s->pair_start[pair + 1] - s->pair_start[pair];
    counts->left_out = corpus->a.n - s->n_anchors;
    if (counts->drawable == 0)
        return rp_fail(RP_STATUS_VALUE,
                       "no pair of entities stands in two different sentences: of %" PRId64 " sentences %" PRId64
                       " know both entities, %" PRId64 " different pairs, the most frequent one in %" PRId64
                       "; give data in which the same entities come again (by \"id\" or by name), or another objective",
                       corpus->a.n, known, s->n_pairs, most);
    if (counts->drawable < 2 && o->positive_share < 1)
        return rp_fail(RP_STATUS_VALUE,
                       "only 1 pair of entities stands in two different sentences (of %" PRId64
                       "): there is no other one to tell it from; give more data",
                       s->n_pairs);
    if (s->n_hard == 0 && o->hard_share > 0 && o->positive_share < 1)
        return rp_fail(RP_STATUS_VALUE,
                       "hard_share is %g, but no sentence shares exactly one entity with one of the %" PRId64
                       " pairs of entities that stand in two different sentences; set it to 0",
                       o->hard_share, counts->drawable);
    return RP_OK;
}

/* -- draws ----------------------------------------------------------------------------------------------- */

/* Whether number i of a step is one of a share that is spread evenly. */
static bool is_share(int64_t i, double share) {
    return (int64_t)((double)(i + 1) * share) > (int64_t)((double)i * share);
}

static int64_t draw_of(const int64_t *rows, int64_t count, rp_rng *rng) {
    return rows[rp_rng_below(rng, (uint32_t)count)];
}

/* Another row of the anchor's pair with another text: there is one. */
static int64_t draw_positive(const rp_entities *s, const rp_corpus *corpus, int64_t anchor, rp_rng *rng) {
    int64_t start = s->pair_start[s->pair[anchor]], count = s->pair_start[s->pair[anchor] + 1] - start;
    const int64_t *rows = s->pair_rows + start;
    for (int i = 0; i < RP_ROW_TRIES; i++) {
        int64_t other = draw_of(rows, count, rng);
        if (!rp_rows_same_text(corpus, anchor, other)) return other;
    }
    int64_t at = rp_rng_below(rng, (uint32_t)count);
    while (rp_rows_same_text(corpus, anchor, rows[at % count])) at++;
    return rows[at % count];
}

/* Either entity with the same probability; the other one where that has no row of its own. */
static int64_t draw_hard(const rp_entities *s, const rp_corpus *corpus, int64_t anchor, rp_rng *rng) {
    int32_t entity[2] = {corpus->a.head_id[anchor], corpus->a.tail_id[anchor]};
    uint32_t side = rp_rng_below(rng, 2);
    int64_t other = -1;
    for (uint32_t i = 0; i < 2 && other < 0; i++) {
        int64_t first = first_mention(s, entity[side ^ i]);
        int64_t count = first_mention(s, (int64_t)entity[side ^ i] + 1) - first;
        for (int j = 0; j < RP_ROW_TRIES; j++) {
            other = s->mentions[first + rp_rng_below(rng, (uint32_t)count)].row;
            if (share_one(corpus, anchor, other)) return other;
        }
        other = search_sharing(s, corpus, anchor, first, count, rp_rng_below(rng, (uint32_t)count));
    }
    return other;
}

/* An anchor of another pair: there is one. */
static int64_t draw_negative(const rp_entities *s, int64_t anchor, rp_rng *rng) {
    for (int i = 0; i < RP_ROW_TRIES; i++) {
        int64_t other = draw_of(s->anchors, s->n_anchors, rng);
        if (s->pair[other] != s->pair[anchor]) return other;
    }
    int64_t at = rp_rng_below(rng, (uint32_t)s->n_anchors);
    while (s->pair[s->anchors[at % s->n_anchors]] == s->pair[anchor]) at++;
    return s->anchors[at % s->n_anchors];
}

void rp_entities_draw(const rp_entities *s, const rp_corpus *corpus, const rp_source_options *o, uint32_t step,
                      rp_draw *out) {
    int64_t negatives = 0;
    for (int64_t i = 0; i < o->count; i++) {
        rp_rng rng = rp_rng_stream(s->key, step, (uint32_t)i, 0);
        bool positive = is_share(i, o->positive_share), hard = !positive && is_share(negatives++, o->hard_share);
        int64_t anchor = hard ? draw_of(s->hard, s->n_hard, &rng) : draw_of(s->anchors, s->n_anchors, &rng);
        int64_t other = positive ? draw_positive(s, corpus, anchor, &rng)
                        : hard   ? draw_hard(s, corpus, anchor, &rng)
                                 : draw_negative(s, anchor, &rng);
        out[2 * i] = (rp_draw){anchor, s->pair[anchor]};
        out[2 * i + 1] = (rp_draw){other, s->pair[other]};
    }
}
