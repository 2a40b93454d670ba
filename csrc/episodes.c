#include "episodes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "rng.h"

static rp_status check_count(int64_t value, int64_t low, int64_t high, const char *name) {
    if (value >= low && value <= high) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%s is %" PRId64 "; expected %" PRId64 " .. %" PRId64, name, value, low, high);
}

static rp_status check_nota(double rate, int64_t n_classes, int64_t n_way) {
    if (!(rate >= 0 && rate < 1))
        return rp_fail(RP_STATUS_VALUE, "nota_rate is %g; expected at least 0 and less than 1", rate);
    if (rate > 0 && n_way == n_classes)
        return rp_fail(RP_STATUS_VALUE,
                       "n_way takes all %" PRId64 " classes, and a nota_rate of %g needs others beside them; take a "
                       "smaller n_way",
                       n_classes, rate);
    return RP_OK;
}

static rp_status check_sizes(const int32_t *labels, int64_t n, int64_t n_classes, int64_t n_way, int64_t k_shot,
                             int64_t n_query) {
    RP_TRY(check_count(n, 1, UINT32_MAX, "the number of instances"));
    RP_TRY(check_count(n_classes, 1, INT32_MAX, "n_classes"));
    RP_TRY(check_count(n_way, 1, INT32_MAX, "n_way"));
    RP_TRY(check_count(k_shot, 1, INT32_MAX, "k_shot"));
    RP_TRY(check_count(n_query, 1, INT32_MAX, "n_query"));
    if (n_way > n_classes)
        return rp_fail(RP_STATUS_VALUE, "n_way is %" PRId64 ", but there are %" PRId64 " classes; take a smaller n_way",
                       n_way, n_classes);
    for (int64_t i = 0; i < n; i++)
        if (labels[i] < 0 || labels[i] >= n_classes)
            return rp_fail(RP_STATUS_VALUE, "labels[%" PRId64 "] is %" PRId32 "; expected 0 .. %" PRId64, i, labels[i],
                           n_classes - 1);
    return RP_OK;
}

static rp_status check_classes(const rp_episodes *e) {
    int64_t needed = e->k_shot + e->n_query;
    for (int64_t c = 0; c < e->n_classes; c++) {
        int64_t count = e->class_start[c + 1] - e->class_start[c];
        if (count < needed)
            return rp_fail(RP_STATUS_VALUE,
                           "class %" PRId64 " has %" PRId64 " instances; %" PRId64 " are needed (k_shot %" PRId64
                           " + n_query %" PRId64 "): leave the class out, or take fewer",
                           c, count, needed, e->k_shot, e->n_query);
    }
    return RP_OK;
}

/* Rows by class: a counting sort, stable. start[c + 1] serves as the cursor of class c, and ends as its end. */
static void index_classes(rp_episodes *e, const int32_t *labels) {
    int64_t *start = e->class_start;
    memset(start, 0, ((size_t)e->n_classes + 1) * sizeof *start);
    for (int64_t i = 0; i < e->n; i++)
        if (labels[i] + 1 < e->n_classes) start[labels[i] + 2]++;
    for (int64_t c = 2; c <= e->n_classes; c++) start[c] += start[c - 1];
    for (int64_t i = 0; i < e->n; i++) e->class_rows[start[labels[i] + 1]++] = i;
}

rp_status rp_episodes_new(rp_episodes **out, const int32_t *labels, int64_t n, int64_t n_classes, int64_t n_way,
                          int64_t k_shot, int64_t n_query, double nota_rate, uint64_t seed) {
    *out = NULL;
    RP_TRY(check_sizes(labels, n, n_classes, n_way, k_shot, n_query));
    RP_TRY(check_nota(nota_rate, n_classes, n_way));
    rp_episodes *e = calloc(1, sizeof *e);
    if (e == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for episodes");
    *e = (rp_episodes){.seed = seed,
                       .n_way = n_way,
                       .k_shot = k_shot,
                       .n_query = n_query,
                       .nota_rate = nota_rate,
                       .n = n,
                       .n_classes = n_classes};
    e->row_class = rp_aligned_alloc((size_t)n * sizeof *e->row_class);
    e->class_start = rp_aligned_alloc(((size_t)n_classes + 1) * sizeof *e->class_start);
    e->class_rows = rp_aligned_alloc((size_t)n * sizeof *e->class_rows);
    rp_status status = RP_OK;
    if (e->row_class == NULL || e->class_start == NULL || e->class_rows == NULL) {
        status = rp_fail(RP_STATUS_MEMORY, "no memory for the index of %" PRId64 " instances", n);
    } else {
        memcpy(e->row_class, labels, (size_t)n * sizeof *labels);
        index_classes(e, labels);
        status = check_classes(e);
    }
    if (status != RP_OK)
        rp_episodes_free(e);
    else
        *out = e;
    return status;
}

void rp_episodes_free(rp_episodes *e) {
    if (e == NULL) return;
    rp_aligned_free(e->row_class);
    rp_aligned_free(e->class_start);
    rp_aligned_free(e->class_rows);
    free(e);
}

/* The places of one drawing without replacement: the first `split` stand in `a` with a stride, the others in `b`. */
typedef struct places {
    int64_t *a, *b;
    int64_t stride, split;
} places;

static int64_t *place(const places *p, int64_t j) {
    return j < p->split ? p->a + j * p->stride : p->b + (j - p->split);
}

/* `count` different numbers of 0 .. n-1, each order equally likely: Fisher and Yates's shuffle of 0 .. n-1, of which
 * the first `count` places are wanted, without the array. Step j swaps places j and d_j >= j. What stands at place d_j
 * before it is found backwards: if an earlier step t swapped this place (d_t equal to it), then what stood at t came
 * there. */
static void draw_different(rp_rng *rng, const places *p, int64_t count, int64_t n) {
    for (int64_t j = 0; j < count; j++) *place(p, j) = j + rp_rng_below(rng, (uint32_t)(n - j));
    for (int64_t j = count - 1; j > 0; j--) { /* backwards: place j is overwritten, and only earlier ones are read */
        int64_t at = *place(p, j);
        for (int64_t t = j - 1; t >= 0; t--)
            if (*place(p, t) == at) at = t;
        *place(p, j) = at;
    }
}

/* The j-th class, from 0, of those that are no way of the episode: j and as many more as there are ways up to it. */
static int64_t outside_class(const rp_episodes *e, const int64_t *support, int64_t j) {
    int64_t ways = 0, counted;
    do {
        counted = ways;
        ways = 0;
        for (int64_t w = 0; w < e->n_way; w++) ways += e->row_class[support[w * e->k_shot]] <= j + counted;
    } while (ways != counted);
    return j + ways;
}

/* Each query has a stream of its own, so that what one draws depends neither on the rate nor on the others. */
static void draw_nota(const rp_episodes *e, uint64_t key, uint64_t number, const int64_t *support, int64_t *query) {
    for (int64_t q = 0; q < e->n_way * e->n_query; q++) {
        rp_rng rng = rp_rng_stream(key, (uint32_t)number, (uint32_t)(number >> 32), (uint32_t)(q + 1));
        if (rp_rng_unit(&rng) >= e->nota_rate) continue;
        int64_t c = outside_class(e, support, rp_rng_below(&rng, (uint32_t)(e->n_classes - e->n_way)));
        int64_t start = e->class_start[c];
        query[q] = e->class_rows[start + rp_rng_below(&rng, (uint32_t)(e->class_start[c + 1] - start))];
    }
}

void rp_episodes_draw(const rp_episodes *e, int64_t i, int64_t *support, int64_t *query) {
    uint64_t number = (uint64_t)i, key = rp_rng_key(e->seed, RP_PURPOSE_EPISODE, 0);
    rp_rng rng = rp_rng_stream(key, (uint32_t)number, (uint32_t)(number >> 32), 0);
    /* The classes stand in the first column of support until their rows are drawn. */
    const places classes = {.a = support, .stride = e->k_shot, .split = e->n_way};
    draw_different(&rng, &classes, e->n_way, e->n_classes);
    for (int64_t w = 0; w < e->n_way; w++) {
        int64_t c = support[w * e->k_shot], start = e->class_start[c];
        const places rows = {support + w * e->k_shot, query + w * e->n_query, 1, e->k_shot};
        draw_different(&rng, &rows, e->k_shot + e->n_query, e->class_start[c + 1] - start);
        for (int64_t j = 0; j < e->k_shot + e->n_query; j++) *place(&rows, j) = e->class_rows[start + *place(&rows, j)];
    }
    if (e->nota_rate > 0) draw_nota(e, key, number, support, query);
}
