#define _POSIX_C_SOURCE 200809L
#include "sampler.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "rng.h"
#include "threads.h"

/* Sites of RP_PURPOSE_PAIR's draws. */
enum { SITE_RELATION, SITE_ROWS, SITE_ROUND };

/* Random tries for a partner of a different entity pair, before the relation's rows are searched for one. */
#define ROW_TRIES 16
#define MAX_EXPONENT 4.0
#define MAX_PAIRS (INT32_MAX / 2 - 1)

typedef struct ticket {
    double time;
    int32_t entry; /* index into drawable */
} ticket;

/* What the worker and the caller share; everything below `mutex` is read and written under it. */
typedef struct prefetch {
    pthread_t thread;
    bool started;
    int64_t pid;
    pthread_mutex_t mutex;
    pthread_cond_t asked, built;
    enum { WORKER_IDLE, WORKER_ASKED, WORKER_BUSY, WORKER_DONE } state;
    bool stop;
    int64_t step; /* the job: build `step` into `batch` */
    rp_batch *batch;
    rp_status status; /* its outcome; rp_message is thread-local, so the text travels with it */
    char message[512];
} prefetch;

struct rp_sampler {
    const rp_corpus *corpus;
    rp_tokens tokens;
    rp_sampler_options options;
    uint64_t relation_key, rows_key, round_key, input_key, mlm_key;
    int32_t n_drawable;
    int64_t left_out;
    int32_t *drawable;  /* (n_drawable) relation numbers, ascending */
    double *weight;     /* (n_drawable) (count / largest count)^exponent */
    double *cumulative; /* (n_drawable) sums of the weights up to and with the entry's */
    uint8_t *one_pair;  /* (n_drawable) all of the relation's rows have one and the same known entity pair */
    ticket *tickets;    /* (n_drawable) scratch of the build under way */
    /* Call c is answered from buffer c % n_buffers, so that it stays valid until call c + 2: two are enough, and a
     * third is what the worker writes meanwhile. */
    rp_batch *buffers[3];
    int n_buffers;
    int64_t calls;
    void *memory;
    prefetch worker;
};

/* -- what can be drawn ----------------------------------------------------------------------------------- */

static bool has_two_texts(const rp_corpus *corpus, int32_t relation) {
    int64_t start = corpus->relation_start[relation], end = corpus->relation_start[relation + 1];
    for (int64_t i = start + 1; i < end; i++)
        if (corpus->text_hash[corpus->relation_rows[i]] != corpus->text_hash[corpus->relation_rows[start]]) return true;
    return false;
}

static bool same_text(const rp_corpus *corpus, int64_t a, int64_t b) {
    return corpus->text_hash[a] == corpus->text_hash[b];
}

/* Both entities known and the same; an unknown one counts as different. */
static bool same_pair(const rp_corpus *corpus, int64_t a, int64_t b) {
    const int32_t *head = corpus->a.head_id, *tail = corpus->a.tail_id;
    return head[a] >= 0 && tail[a] >= 0 && head[a] == head[b] && tail[a] == tail[b];
}

static bool has_one_pair(const rp_corpus *corpus, int32_t relation) {
    int64_t start = corpus->relation_start[relation], end = corpus->relation_start[relation + 1];
    for (int64_t i = start + 1; i < end; i++)
        if (!same_pair(corpus, corpus->relation_rows[start], corpus->relation_rows[i])) return false;
    return true;
}

static int64_t count_of(const rp_corpus *corpus, int32_t relation) {
    return corpus->relation_start[relation + 1] - corpus->relation_start[relation];
}

static void take_tables(rp_sampler *s, rp_arena *arena) {
    size_t n = (size_t)s->corpus->a.n_relations; /* n_drawable is not known yet */
    s->drawable = rp_arena_take(arena, n, sizeof *s->drawable);
    s->weight = rp_arena_take(arena, n, sizeof *s->weight);
    s->cumulative = rp_arena_take(arena, n, sizeof *s->cumulative);
    s->one_pair = rp_arena_take(arena, n, sizeof *s->one_pair);
    s->tickets = rp_arena_take(arena, n, sizeof *s->tickets);
}

static rp_status fill_tables(rp_sampler *s) {
    const rp_corpus *corpus = s->corpus;
    int64_t largest = 0;
    for (int32_t r = 0; r < corpus->a.n_relations; r++) {
        if (!has_two_texts(corpus, r)) {
            s->left_out += count_of(corpus, r);
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
        s->weight[e] = pow((double)count_of(corpus, s->drawable[e]) / (double)largest, s->options.relation_exponent);
        s->cumulative[e] = sum += s->weight[e];
    }
    return RP_OK;
}

/* C+T and OnlyT need both types of every row that can be drawn: said now, rather than in the middle of a training. */
static rp_status check_types(const rp_sampler *s) {
    const rp_corpus *corpus = s->corpus;
    if (s->options.input_weight[RP_INPUT_CT] <= 0 && s->options.input_weight[RP_INPUT_OT] <= 0) return RP_OK;
    for (int32_t e = 0; e < s->n_drawable; e++) {
        int64_t end = corpus->relation_start[s->drawable[e] + 1];
        for (int64_t i = corpus->relation_start[s->drawable[e]]; i < end; i++) {
            int64_t row = corpus->relation_rows[i];
            if (corpus->a.head_type[row] < 0 || corpus->a.tail_type[row] < 0)
                return rp_fail(RP_STATUS_VALUE,
                               "row %" PRId64 ": %s is -1 (unknown), and input_weight gives C+T or OnlyT a "
                               "share; give the entity a type, or set these weights to 0",
                               row, corpus->a.head_type[row] < 0 ? "head_type" : "tail_type");
        }
    }
    return RP_OK;
}

/* -- options --------------------------------------------------------------------------------------------- */

static rp_status check_unit(double value, double high, const char *name) {
    if (value >= 0 && value <= high) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%s is %g; expected 0 .. %g", name, value, high);
}

static rp_status check_count(int64_t value, int64_t low, int64_t high, const char *name) {
    if (value >= low && value <= high) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%s is %" PRId64 "; expected %" PRId64 " .. %" PRId64, name, value, low, high);
}

static rp_status check_options(const rp_sampler_options *o) {
    static const char *const weights[5] = {"input_weight[0] (C+M)", "input_weight[1] (C+T)", "input_weight[2] (OnlyC)",
                                           "input_weight[3] (OnlyM)", "input_weight[4] (OnlyT)"};
    RP_TRY(check_count(o->pairs, 1, MAX_PAIRS, "pairs"));
    RP_TRY(check_count(o->max_length, RP_BATCH_MIN_LENGTH, RP_BATCH_MAX_LENGTH, "max_length"));
    RP_TRY(check_count(o->pairs_per_relation, 1, MAX_PAIRS, "pairs_per_relation"));
    RP_TRY(check_unit(o->relation_exponent, MAX_EXPONENT, "relation_exponent"));
    RP_TRY(check_unit(o->p_blank, 1, "p_blank"));
    RP_TRY(check_unit(o->mlm_probability, 1, "mlm_probability"));
    double sum = 0;
    for (int i = 0; i < 5; i++) {
        RP_TRY(check_unit(o->input_weight[i], 1, weights[i]));
        sum += o->input_weight[i];
    }
    if (fabs(sum - 1) > 1e-6) return rp_fail(RP_STATUS_VALUE, "input_weight sums to %g; expected 1", sum);
    return RP_OK;
}

static rp_status check_corpus(const rp_corpus *corpus, const rp_tokens *tokens) {
    RP_TRY(rp_tokens_check(tokens));
    if (tokens->vocab_size < corpus->a.vocab_size)
        return rp_fail(RP_STATUS_VALUE,
                       "tokens: special has %" PRId32 " flags; expected at least the corpus's vocab_size, %" PRId32,
                       tokens->vocab_size, corpus->a.vocab_size);
    if (corpus->a.n > UINT32_MAX)
        return rp_fail(RP_STATUS_VALUE, "the corpus has %" PRId64 " rows; expected at most %" PRIu32, corpus->a.n,
                       UINT32_MAX);
    return RP_OK;
}

static rp_status check_step(int64_t step) { return check_count(step, 0, UINT32_MAX, "step"); }

/* -- relations of a step --------------------------------------------------------------------------------- */

/* Entry drawn in proportion to the weights: the first whose cumulative sum exceeds u * total. */
static int32_t draw_entry(const rp_sampler *s, uint32_t step, uint32_t pair) {
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

static bool is_earlier(const ticket *a, const ticket *b) {
    return a->time < b->time || (a->time == b->time && a->entry < b->entry);
}

static void sift_down(ticket *heap, int32_t n, int32_t at) {
    ticket item = heap[at];
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
static void open_round(const rp_sampler *s, ticket *heap, uint32_t step, uint32_t round) {
    for (int32_t e = 0; e < s->n_drawable; e++) {
        rp_rng rng = rp_rng_stream(s->round_key, step, round, (uint32_t)e);
        heap[e] = (ticket){.time = -log(1 - rp_rng_unit(&rng)) / s->weight[e], .entry = e};
    }
    for (int32_t at = s->n_drawable / 2; at-- > 0;) sift_down(heap, s->n_drawable, at);
}

/* The earliest of the heap's `left` tickets, taken out. */
static int32_t next_of_round(ticket *heap, int32_t left) {
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
        if (same_text(corpus, row, other)) continue;
        if (!pairs_differ || !same_pair(corpus, row, other)) return other;
        if (fallback < 0) fallback = other;
    }
    return fallback;
}

/* rows[0] is uniform over the relation's rows; rows[1] uniform over its possible partners while the tries last. A
 * drawable relation has two different texts, so that every first row has a partner. */
static void draw_rows(const rp_sampler *s, int32_t entry, uint32_t step, uint32_t pair, int64_t rows[2]) {
    const rp_corpus *corpus = s->corpus;
    const int64_t *all = corpus->relation_rows + corpus->relation_start[s->drawable[entry]];
    int64_t count = count_of(corpus, s->drawable[entry]);
    bool pairs_differ = !s->one_pair[entry];
    rp_rng rng = rp_rng_stream(s->rows_key, step, pair, 0);
    rows[0] = all[rp_rng_below(&rng, (uint32_t)count)];
    for (int i = 0; i < ROW_TRIES; i++) {
        rows[1] = all[rp_rng_below(&rng, (uint32_t)count)];
        if (!same_text(corpus, rows[0], rows[1]) && !(pairs_differ && same_pair(corpus, rows[0], rows[1]))) return;
    }
    rows[1] = search_partner(corpus, all, count, rows[0], rp_rng_below(&rng, (uint32_t)count), pairs_differ);
}

rp_status rp_sampler_pair(const rp_sampler *s, int64_t step, int64_t pair, int64_t rows[2]) {
    RP_TRY(check_step(step));
    RP_TRY(check_count(pair, 0, s->options.pairs - 1, "pair"));
    int32_t entry;
    int64_t draw = pair / s->options.pairs_per_relation;
    if (s->options.distinct_relations) {
        ticket *heap = malloc((size_t)s->n_drawable * sizeof *heap); /* the sampler's own may be in use by the worker */
        if (heap == NULL)
            return rp_fail(RP_STATUS_MEMORY, "no memory to draw from %" PRId32 " relations", s->n_drawable);
        open_round(s, heap, (uint32_t)step, (uint32_t)(draw / s->n_drawable));
        for (int32_t i = 0; i < draw % s->n_drawable; i++) next_of_round(heap, s->n_drawable - i);
        entry = heap[0].entry;
        free(heap);
    } else {
        entry = draw_entry(s, (uint32_t)step, (uint32_t)draw);
    }
    draw_rows(s, entry, (uint32_t)step, (uint32_t)pair, rows);
    return RP_OK;
}

/* ---- one batch
 * --------------------------------------------------------------------------------------------------------- */

static rp_input draw_input(const double weight[5], rp_rng *rng) {
    double at = rp_rng_unit(rng), sum = 0;
    int last = 0;
    for (int i = 0; i < 5; i++) {
        if (weight[i] <= 0) continue;
        if (at < (sum += weight[i])) return (rp_input)i;
        last = i;
    }
    return (rp_input)last; /* the sum may fall short of 1 by a rounding error */
}

/* The setting, then the head's blank, then the tail's. All three are always drawn, so that none depends on another. */
static rp_sample draw_sample(const rp_sampler *s, int64_t row, uint32_t step, uint32_t number) {
    rp_rng rng = rp_rng_stream(s->input_key, step, number, 0);
    rp_sample sample = {.row = row, .input = draw_input(s->options.input_weight, &rng)};
    sample.role_blanks = s->options.role_blanks;
    sample.blank_head = rp_rng_unit(&rng) < s->options.p_blank;
    sample.blank_tail = rp_rng_unit(&rng) < s->options.p_blank;
    return sample;
}

static rp_status add_sample(const rp_sampler *s, rp_batch *batch, int64_t row, uint32_t step, int32_t number) {
    rp_sample sample = draw_sample(s, row, step, (uint32_t)number);
    RP_TRY(rp_batch_add(batch, s->corpus, &s->tokens, &sample, s->options.max_length, number));
    if (s->options.mlm_probability > 0)
        rp_batch_mask(batch, &s->tokens, number, s->options.mlm_probability, s->mlm_key, step);
    return RP_OK;
}

/* Runs in the caller or in the worker, never in both at once (s->tickets is one). */
static rp_status build(const rp_sampler *s, int64_t step, rp_batch *batch) {
    int32_t left = 0, entry = 0;
    uint32_t round = 0;
    rp_batch_clear(batch);
    for (int32_t pair = 0; pair < s->options.pairs; pair++) {
        int64_t rows[2];
        if (pair % s->options.pairs_per_relation != 0) {
            /* the relation of the pair before */
        } else if (s->options.distinct_relations) {
            if (left == 0) {
                open_round(s, s->tickets, (uint32_t)step, round++);
                left = s->n_drawable;
            }
            entry = next_of_round(s->tickets, left--);
        } else {
            entry = draw_entry(s, (uint32_t)step, (uint32_t)(pair / s->options.pairs_per_relation));
        }
        draw_rows(s, entry, (uint32_t)step, (uint32_t)pair, rows);
        RP_TRY(add_sample(s, batch, rows[0], (uint32_t)step, 2 * pair));
        RP_TRY(add_sample(s, batch, rows[1], (uint32_t)step, 2 * pair + 1));
    }
    return RP_OK;
}

/* ---- the worker
 * ---------------------------------------------------------------------------------------------------------- */

static void *work(void *argument) {
    rp_sampler *s = argument;
    prefetch *w = &s->worker;
    pthread_mutex_lock(&w->mutex);
    while (!w->stop) {
        if (w->state != WORKER_ASKED) {
            pthread_cond_wait(&w->asked, &w->mutex);
            continue;
        }
        w->state = WORKER_BUSY;
        int64_t step = w->step;
        rp_batch *batch = w->batch;
        pthread_mutex_unlock(&w->mutex);
        rp_status status = build(s, step, batch);
        pthread_mutex_lock(&w->mutex);
        w->status = status;
        if (status != RP_OK) {
            strncpy(w->message, rp_message(), sizeof w->message - 1);
            w->message[sizeof w->message - 1] = '\0';
        }
        w->state = WORKER_DONE;
        pthread_cond_signal(&w->built);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static rp_status start_worker(rp_sampler *s) {
    prefetch *w = &s->worker;
    if (pthread_mutex_init(&w->mutex, NULL) != 0) goto refused;
    if (pthread_cond_init(&w->asked, NULL) != 0) goto no_asked;
    if (pthread_cond_init(&w->built, NULL) != 0) goto no_built;
    sigset_t all, former; /* signals are the business of the caller's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &former);
    w->started = pthread_create(&w->thread, NULL, work, s) == 0;
    pthread_sigmask(SIG_SETMASK, &former, NULL);
    if (w->started) return RP_OK;
    pthread_cond_destroy(&w->built);
no_built:
    pthread_cond_destroy(&w->asked);
no_asked:
    pthread_mutex_destroy(&w->mutex);
refused:
    return rp_fail(RP_STATUS_IO,
                   "the system refused a thread for preparing batches; free some, or set prefetch to False");
}

static void stop_worker(prefetch *w) {
    if (!w->started || w->pid != rp_threads_pid()) return; /* a forked child has no worker */
    pthread_mutex_lock(&w->mutex);
    w->stop = true;
    pthread_cond_signal(&w->asked);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->built);
    pthread_cond_destroy(&w->asked);
    pthread_mutex_destroy(&w->mutex);
}

/* Waits until the worker rests, or takes back a job it has not begun. True when it has built `step`: then *status is
 * its outcome, with the message in this thread. */
static bool collect(prefetch *w, int64_t step, rp_status *status) {
    pthread_mutex_lock(&w->mutex);
    if (w->state == WORKER_ASKED && w->step != step) w->state = WORKER_IDLE;
    while (w->state == WORKER_ASKED || w->state == WORKER_BUSY) pthread_cond_wait(&w->built, &w->mutex);
    bool found = w->state == WORKER_DONE && w->step == step;
    if (found) *status = w->status == RP_OK ? RP_OK : rp_fail(w->status, "%s", w->message);
    w->state = WORKER_IDLE;
    pthread_mutex_unlock(&w->mutex);
    return found;
}

static void ask(prefetch *w, int64_t step, rp_batch *batch) {
    pthread_mutex_lock(&w->mutex);
    w->step = step;
    w->batch = batch;
    w->state = WORKER_ASKED;
    pthread_cond_signal(&w->asked);
    pthread_mutex_unlock(&w->mutex);
}

rp_status rp_sampler_batch(rp_sampler *s, int64_t step, const rp_batch **out) {
    *out = NULL;
    RP_TRY(rp_threads_check_pid(s->worker.pid));
    RP_TRY(check_step(step));
    rp_batch *batch = s->buffers[s->calls % s->n_buffers];
    rp_status status;
    if (!s->worker.started || !collect(&s->worker, step, &status)) status = build(s, step, batch);
    if (status != RP_OK) return status;
    s->calls++;
    if (s->worker.started && step < UINT32_MAX) ask(&s->worker, step + 1, s->buffers[s->calls % s->n_buffers]);
    *out = batch;
    return RP_OK;
}

/* ---- life
 * ------------------------------------------------------------------------------------------------------------------ */

static rp_status allocate(rp_sampler *s) {
    rp_arena arena = {0};
    take_tables(s, &arena);
    RP_TRY(rp_arena_check(&arena));
    s->memory = arena.base = rp_aligned_alloc(arena.used);
    if (s->memory == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a sampler (%zu bytes)", arena.used);
    arena.capacity = arena.used;
    arena.used = 0;
    take_tables(s, &arena);
    return RP_OK;
}

static rp_status make_buffers(rp_sampler *s) {
    int64_t longest = rp_batch_longest(s->corpus, &s->tokens);
    if (longest > s->options.max_length) longest = s->options.max_length;
    s->n_buffers = s->options.prefetch ? 3 : 2;
    for (int i = 0; i < s->n_buffers; i++)
        RP_TRY(rp_batch_new(&s->buffers[i], 2 * s->options.pairs, 2 * s->options.pairs * longest));
    return RP_OK;
}

static rp_status set_up(rp_sampler *s) {
    RP_TRY(allocate(s));
    RP_TRY(fill_tables(s));
    RP_TRY(check_types(s));
    RP_TRY(make_buffers(s));
    return s->options.prefetch ? start_worker(s) : RP_OK;
}

rp_status rp_sampler_new(rp_sampler **out, const rp_corpus *corpus, const rp_tokens *tokens,
                         const rp_sampler_options *options) {
    *out = NULL;
    RP_TRY(check_options(options));
    RP_TRY(check_corpus(corpus, tokens));
    rp_sampler *s = calloc(1, sizeof *s);
    if (s == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a sampler");
    s->corpus = corpus;
    s->tokens = *tokens;
    s->options = *options;
    s->relation_key = rp_rng_key(options->seed, RP_PURPOSE_PAIR, SITE_RELATION);
    s->rows_key = rp_rng_key(options->seed, RP_PURPOSE_PAIR, SITE_ROWS);
    s->round_key = rp_rng_key(options->seed, RP_PURPOSE_PAIR, SITE_ROUND);
    s->input_key = rp_rng_key(options->seed, RP_PURPOSE_INPUT, 0);
    s->mlm_key = rp_rng_key(options->seed, RP_PURPOSE_MLM, 0);
    s->worker.pid = rp_threads_pid();
    rp_status status = set_up(s);
    if (status != RP_OK)
        rp_sampler_free(s);
    else
        *out = s;
    return status;
}

void rp_sampler_free(rp_sampler *s) {
    if (s == NULL) return;
    stop_worker(&s->worker);
    for (int i = 0; i < 3; i++) rp_batch_free(s->buffers[i]);
    rp_aligned_free(s->memory);
    free(s);
}

void rp_sampler_counts(const rp_sampler *s, int64_t *relations, int64_t *left_out) {
    *relations = s->n_drawable;
    *left_out = s->left_out;
}
