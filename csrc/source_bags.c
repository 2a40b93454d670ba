#include <inttypes.h>
#include <stdlib.h>

#include "rng.h"
#include "source.h"

void rp_bag_source_plan(rp_bag_source *s, rp_arena *arena, const rp_corpus *corpus) {
    size_t n = (size_t)corpus->a.n;
    s->bag_start = rp_arena_take(arena, n + 1, sizeof *s->bag_start);
    s->bag_rows = rp_arena_take(arena, n, sizeof *s->bag_rows);
}

/* -- the index ------------------------------------------------------------------------------------------- */

typedef struct keyed {
    int32_t head, tail, relation;
    int64_t row;
} keyed;

static int by_bag(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    if (x->head != y->head) return x->head < y->head ? -1 : 1;
    if (x->tail != y->tail) return x->tail < y->tail ? -1 : 1;
    if (x->relation != y->relation) return x->relation < y->relation ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static bool same_bag(const keyed *x, const keyed *y) {
    return x->head == y->head && x->tail == y->tail && x->relation == y->relation;
}

/* bag_start, bag_rows, n_bags of the rows that know their entities; *largest: rows of the largest bag. */
static rp_status index_bags(rp_bag_source *s, const rp_corpus *corpus, int64_t *largest) {
    const rp_corpus_arrays *a = &corpus->a;
    int64_t known = 0;
    keyed *sorted = malloc(((size_t)a->n + 1) * sizeof *sorted);
    if (sorted == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory to sort %" PRId64 " sentences into bags", a->n);
    for (int64_t row = 0; row < a->n; row++)
        if (rp_row_has_pair(corpus, row))
            sorted[known++] = (keyed){a->head_id[row], a->tail_id[row], a->relation[row], row};
    qsort(sorted, (size_t)known, sizeof *sorted, by_bag);
    s->n_bags = 0;
    for (int64_t i = 0; i < known; i++) {
        if (i == 0 || !same_bag(&sorted[i], &sorted[i - 1])) s->bag_start[s->n_bags++] = i;
        int64_t size = i + 1 - s->bag_start[s->n_bags - 1];
        if (size > *largest) *largest = size;
        s->bag_rows[i] = sorted[i].row;
    }
    s->bag_start[s->n_bags] = known;
    free(sorted);
    return RP_OK;
}

rp_status rp_bag_source_fill(rp_bag_source *s, const rp_corpus *corpus, rp_source_counts *counts) {
    int64_t largest = 0;
    RP_TRY(index_bags(s, corpus, &largest));
    counts->drawable = s->n_bags;
    counts->left_out = corpus->a.n - s->bag_start[s->n_bags];
    if (s->n_bags == 0)
        return rp_fail(RP_STATUS_VALUE,
                       "no bag left: none of the %" PRId64 " sentences knows both of its entities; give them an \"id\" "
                       "or a name, by which bags are made",
                       corpus->a.n);
    if (largest < 2)
        return rp_fail(RP_STATUS_VALUE,
                       "no bag has two sentences: %" PRId64 " sentences know both entities, and each is the only one "
                       "of its pair and relation; classify single sentences, or give data in which pairs come again",
                       s->n_bags);
    return RP_OK;
}

/* -- a step ---------------------------------------------------------------------------------------------- */

/* `wanted` of a bag's rows, each subset with the same probability (selection sampling: Knuth, "The Art of Computer
 * Programming", volume 2, 3.4.2, algorithm S). */
static rp_draw *draw_rows(rp_draw *out, const int64_t *rows, int64_t count, int64_t wanted, int32_t bag, rp_rng *rng) {
    for (int64_t i = 0; i < count && wanted > 0; i++) {
        if (rp_rng_below(rng, (uint32_t)(count - i)) >= wanted) continue;
        *out++ = (rp_draw){rows[i], bag};
        wanted--;
    }
    return out;
}

int64_t rp_bag_source_draw(const rp_bag_source *s, const rp_source_options *o, uint32_t step, rp_draw *out) {
    uint64_t n = (uint64_t)s->n_bags;
    rp_draw *next = out;
    for (int64_t i = 0; i < o->count; i++) {
        uint64_t number = (uint64_t)step * (uint64_t)o->count + (uint64_t)i;
        uint64_t bag = rp_permuted(s->key, (uint32_t)(number / n), number % n, n);
        int64_t first = s->bag_start[bag], count = s->bag_start[bag + 1] - first;
        rp_rng rng = rp_rng_stream(s->rows_key, (uint32_t)number, (uint32_t)(number >> 32), 0);
        next = draw_rows(next, s->bag_rows + first, count, count < o->bag_size ? count : o->bag_size, (int32_t)i, &rng);
    }
    return next - out;
}
