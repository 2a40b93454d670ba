#include <inttypes.h>
#include <stdlib.h>

#include "rng.h"
#include "source.h"

void rp_episode_source_plan(rp_episode_source *s, rp_arena *arena, const rp_corpus *corpus) {
    size_t n = (size_t)corpus->a.n;
    s->text_rows = rp_arena_take(arena, n, sizeof *s->text_rows);
    s->text_start = rp_arena_take(arena, n + 1, sizeof *s->text_start);
    s->can_draw = rp_arena_take(arena, (size_t)corpus->a.n_relations, sizeof *s->can_draw);
}

/* -- the index ------------------------------------------------------------------------------------------- */

typedef struct keyed {
    uint64_t text;
    int64_t row;
} keyed;

static int by_text(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    if (x->text != y->text) return x->text < y->text ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* Appends the texts of a relation to those from number `first` on, of which rows from text_start[first] on are; returns
 * how many it has. sorted: room for the relation's rows. */
static int64_t add_texts(rp_episode_source *s, const rp_corpus *corpus, int32_t relation, int64_t first,
                         keyed *sorted) {
    const int64_t *rows = corpus->relation_rows + corpus->relation_start[relation];
    int64_t count = corpus->relation_start[relation + 1] - corpus->relation_start[relation], texts = 0;
    int64_t begin = s->text_start[first];
    for (int64_t i = 0; i < count; i++) sorted[i] = (keyed){corpus->text_hash[rows[i]], rows[i]};
    qsort(sorted, (size_t)count, sizeof *sorted, by_text);
    for (int64_t i = 0; i < count; i++) {
        if (i == 0 || sorted[i].text != sorted[i - 1].text) s->text_start[first + texts++] = begin + i;
        s->text_rows[begin + i] = sorted[i].row;
    }
    s->text_start[first + texts] = begin + count;
    return texts;
}

static rp_status refuse_too_few(const rp_source_options *o, const rp_corpus *corpus, int64_t relations,
                                int64_t largest) {
    return rp_fail(RP_STATUS_VALUE,
                   "episodes need n_way %" PRId64 " relations with %" PRId64
                   " different sentences each (k_shot %" PRId64 " + n_query %" PRId64 "): %" PRId64 " of the %" PRId32
                   " relations have as many, the largest %" PRId64
                   "; lower n_way, k_shot or n_query, or give more sentences",
                   o->n_way, o->k_shot + o->n_query, o->k_shot, o->n_query, relations, corpus->a.n_relations, largest);
}

/* Class of each text: its relation's number among those with enough texts; others leave no trace but their count. */
static rp_status index_texts(rp_episode_source *s, const rp_corpus *corpus, const rp_source_options *o,
                             rp_source_counts *counts, int32_t *class_of, keyed *sorted, uint64_t seed) {
    int64_t texts = 0, largest = 0, classes = 0;
    s->text_start[0] = 0;
    for (int32_t r = 0; r < corpus->a.n_relations; r++) {
        int64_t own = add_texts(s, corpus, r, texts, sorted);
        if (own > largest) largest = own;
        s->can_draw[r] = own >= o->k_shot + o->n_query;
        if (!s->can_draw[r]) {
            counts->left_out += corpus->relation_start[r + 1] - corpus->relation_start[r];
            continue;
        }
        for (int64_t i = 0; i < own; i++) class_of[texts++] = (int32_t)classes;
        classes++;
    }
    counts->drawable = classes;
    if (classes < o->n_way) return refuse_too_few(o, corpus, classes, largest);
    return rp_episodes_new(&s->episodes, class_of, texts, classes, o->n_way, o->k_shot, o->n_query, 0, seed);
}

rp_status rp_episode_source_fill(rp_episode_source *s, const rp_corpus *corpus, const rp_source_options *o,
                                 rp_source_counts *counts, uint64_t seed) {
    size_t n = (size_t)corpus->a.n + 1;
    int32_t *class_of = malloc(n * sizeof *class_of);
    keyed *sorted = malloc(n * sizeof *sorted);
    rp_status status = RP_OK;
    if (class_of == NULL || sorted == NULL)
        status = rp_fail(RP_STATUS_MEMORY, "no memory to sort %" PRId64 " sentences", corpus->a.n);
    else
        status = index_texts(s, corpus, o, counts, class_of, sorted, seed);
    free(class_of);
    free(sorted);
    return status;
}

/* -- a step ---------------------------------------------------------------------------------------------- */

void rp_episode_source_draw(const rp_episode_source *s, const rp_source_options *o, uint32_t step, rp_draw *out,
                            int64_t *texts) {
    int64_t size = o->n_way * (o->k_shot + o->n_query);
    for (int64_t e = 0; e < o->count; e++) {
        uint64_t number = (uint64_t)step * (uint64_t)o->count + (uint64_t)e;
        rp_episodes_draw(s->episodes, (int64_t)number, texts, texts + o->n_way * o->k_shot);
        for (int64_t i = 0; i < size; i++) {
            int64_t first = s->text_start[texts[i]], count = s->text_start[texts[i] + 1] - first;
            rp_rng rng = rp_rng_stream(s->rows_key, (uint32_t)number, (uint32_t)(number >> 32), (uint32_t)i);
            out[e * size + i] = (rp_draw){s->text_rows[first + rp_rng_below(&rng, (uint32_t)count)], -1};
        }
    }
}
