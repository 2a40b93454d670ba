#define _POSIX_C_SOURCE 200809L
#include "sampler.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "threads.h"

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
    const rp_corpus *corpus[2]; /* the run's, the target's or NULL */
    rp_tokens tokens[2];
    rp_sampler_options options;
    uint64_t input_key, mlm_key, span_key;
    rp_source source[RP_SOURCES]; /* (options.sources) */
    int64_t samples;              /* of a step */
    rp_draw *draws;               /* (samples), and */
    void *scratch;                /* what the sources need, of the build under way */
    /* Call c is answered from buffer c % n_buffers, so that it stays valid until call c + 2: two are enough, and a
     * third is what the worker writes meanwhile. */
    rp_batch *buffers[3];
    int n_buffers;
    int64_t calls;
    prefetch worker;
};

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
    int64_t samples = 0;
    RP_TRY(check_count(o->sources, 1, RP_SOURCES, "the number of sources"));
    for (int64_t i = 0; i < o->sources; i++) {
        RP_TRY(rp_source_check(&o->source[i]));
        const char *varies = rp_source_varies(&o->source[i]);
        if (varies != NULL && i < o->sources - 1) /* the samples behind it would move */
            return rp_fail(RP_STATUS_VALUE, "source %d %s; expected it to be the last", (int)i, varies);
        samples += rp_source_samples(&o->source[i]);
    }
    RP_TRY(check_count(samples, 1, INT32_MAX - 2, "the number of sentences of a step"));
    RP_TRY(check_count(o->max_length, RP_BATCH_MIN_LENGTH, RP_BATCH_MAX_LENGTH, "max_length"));
    RP_TRY(check_unit(o->p_blank, 1, "p_blank"));
    RP_TRY(check_unit(o->mlm_probability, 1, "mlm_probability"));
    RP_TRY(check_unit(o->graph_dropout, 1, "graph_dropout"));
    double sum = 0;
    for (int i = 0; i < 5; i++) {
        RP_TRY(check_unit(o->input_weight[i], 1, weights[i]));
        sum += o->input_weight[i];
    }
    if (fabs(sum - 1) > 1e-6) return rp_fail(RP_STATUS_VALUE, "input_weight sums to %g; expected 1", sum);
    return RP_OK;
}

static bool masks_spans(const rp_sampler_options *o) {
    return o->spans.mention_probability > 0 || o->spans.relation_probability > 0;
}

static rp_status check_masking(const rp_sampler_options *o, const rp_tokens *tokens) {
    RP_TRY(rp_span_masking_check(&o->spans, tokens));
    if (o->mlm_probability == 0 || !masks_spans(o)) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "mlm_probability is %g, and spans are masked too; expected one of the two",
                   o->mlm_probability);
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

static rp_status check_target(const rp_sampler_options *o, const rp_text *target) {
    for (int64_t i = 0; i < o->sources; i++)
        if (o->source[i].target && target == NULL)
            return rp_fail(RP_STATUS_VALUE, "source %d draws from a target, and none is given", (int)i);
    return target == NULL ? RP_OK : check_corpus(target->corpus, target->tokens);
}

static rp_status check_step(int64_t step) { return check_count(step, 0, UINT32_MAX, "step"); }

/* C+T and OnlyT need both types of every row that can be drawn: said now, rather than in the middle of a training. */
static rp_status check_types(const rp_source *source) {
    const rp_corpus_arrays *a = &source->corpus->a;
    for (int64_t row = 0; row < a->n; row++)
        if ((a->head_type[row] < 0 || a->tail_type[row] < 0) && rp_source_can_draw(source, row))
            return rp_fail(RP_STATUS_VALUE,
                           "row %" PRId64 ": %s is -1 (unknown), and input_weight gives C+T or OnlyT a "
                           "share; give the entity a type, or set these weights to 0",
                           row, a->head_type[row] < 0 ? "head_type" : "tail_type");
    return RP_OK;
}

/* -- one batch ------------------------------------------------------------------------------------------- */

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

/* The setting, the head's blank, the tail's, the graph's. All are always drawn, so that none depends on another. */
static rp_sample draw_sample(const rp_sampler *s, int64_t row, uint32_t step, uint32_t number) {
    rp_rng rng = rp_rng_stream(s->input_key, step, number, 0);
    rp_sample sample = {.row = row, .input = draw_input(s->options.input_weight, &rng)};
    sample.role_blanks = s->options.role_blanks;
    sample.blank_head = rp_rng_unit(&rng) < s->options.p_blank;
    sample.blank_tail = rp_rng_unit(&rng) < s->options.p_blank;
    sample.without_graph = rp_rng_unit(&rng) < s->options.graph_dropout;
    return sample;
}

static rp_status add_sample(const rp_sampler *s, rp_batch *batch, const rp_source *source, const rp_draw *draw,
                            uint32_t step, int32_t number) {
    const rp_tokens *tokens = &s->tokens[source->options.target];
    rp_sample sample = draw_sample(s, draw->row, step, (uint32_t)number);
    RP_TRY(rp_batch_add(batch, source->corpus, tokens, &sample, s->options.max_length, number));
    batch->pair[number] = draw->pair;
    if (source->options.target) batch->relation[number] = -1;
    if (s->options.mlm_probability > 0)
        rp_mask_words(batch, tokens, number, s->options.mlm_probability, s->mlm_key, step);
    if (masks_spans(&s->options)) rp_mask_spans(batch, tokens, number, &s->options.spans, s->span_key, step);
    return RP_OK;
}

/* All samples of a step to draws(samples), source by source; their number. */
static int64_t draw_step(const rp_sampler *s, uint32_t step, rp_draw *draws, void *scratch) {
    int64_t count = 0;
    for (int64_t i = 0; i < s->options.sources; i++)
        count += rp_source_draw(&s->source[i], step, draws + count, scratch);
    return count;
}

/* Runs in the caller or in the worker, never in both at once (s->draws is one). */
static rp_status build(const rp_sampler *s, int64_t step, rp_batch *batch) {
    rp_batch_clear(batch);
    int32_t number = 0;
    for (int64_t i = 0; i < s->options.sources; i++) {
        int64_t count = rp_source_draw(&s->source[i], (uint32_t)step, s->draws, s->scratch);
        for (int64_t j = 0; j < count; j++)
            RP_TRY(add_sample(s, batch, &s->source[i], &s->draws[j], (uint32_t)step, number++));
    }
    return RP_OK;
}

static size_t scratch_bytes(const rp_sampler *s) {
    size_t most = 1;
    for (int64_t i = 0; i < s->options.sources; i++)
        if (rp_source_scratch(&s->source[i]) > most) most = rp_source_scratch(&s->source[i]);
    return most;
}

int64_t rp_sampler_sources(const rp_sampler *s) { return s->options.sources; }

int64_t rp_sampler_samples(const rp_sampler *s) { return s->samples; }

rp_status rp_sampler_draws(const rp_sampler *s, int64_t step, rp_draw *draws, int64_t *count) {
    RP_TRY(check_step(step));
    void *scratch = malloc(scratch_bytes(s)); /* the sampler's own may be in use by the worker */
    if (scratch == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory to draw a step");
    *count = draw_step(s, (uint32_t)step, draws, scratch);
    free(scratch);
    return RP_OK;
}

/* -- the worker ------------------------------------------------------------------------------------------ */

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

/* -- life ------------------------------------------------------------------------------------------------ */

static rp_status make_buffers(rp_sampler *s) {
    int64_t longest = 0;
    for (int i = 0; i < 2 && s->corpus[i] != NULL; i++)
        if (rp_batch_longest(s->corpus[i], &s->tokens[i]) > longest)
            longest = rp_batch_longest(s->corpus[i], &s->tokens[i]);
    if (longest > s->options.max_length) longest = s->options.max_length;
    s->draws = malloc((size_t)s->samples * sizeof *s->draws);
    s->scratch = malloc(scratch_bytes(s));
    if (s->draws == NULL || s->scratch == NULL)
        return rp_fail(RP_STATUS_MEMORY, "no memory for a step of %" PRId64 " sentences", s->samples);
    s->n_buffers = s->options.prefetch ? 3 : 2;
    for (int i = 0; i < s->n_buffers; i++) RP_TRY(rp_batch_new(&s->buffers[i], s->samples, s->samples * longest));
    return RP_OK;
}

static rp_status set_up(rp_sampler *s) {
    for (int32_t i = 0; i < s->options.sources; i++) {
        s->samples += rp_source_samples(&s->options.source[i]);
        RP_TRY(rp_source_init(&s->source[i], s->corpus[s->options.source[i].target], &s->options.source[i],
                              s->options.seed, i));
        if (s->options.input_weight[RP_INPUT_CT] > 0 || s->options.input_weight[RP_INPUT_OT] > 0)
            RP_TRY(check_types(&s->source[i]));
    }
    RP_TRY(make_buffers(s));
    return s->options.prefetch ? start_worker(s) : RP_OK;
}

rp_status rp_sampler_new(rp_sampler **out, const rp_corpus *corpus, const rp_tokens *tokens, const rp_text *target,
                         const rp_sampler_options *options) {
    *out = NULL;
    RP_TRY(check_options(options));
    RP_TRY(check_corpus(corpus, tokens));
    RP_TRY(check_target(options, target));
    RP_TRY(check_masking(options, tokens));
    if (target != NULL) RP_TRY(check_masking(options, target->tokens));
    rp_sampler *s = calloc(1, sizeof *s);
    if (s == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a sampler");
    s->corpus[0] = corpus;
    s->tokens[0] = *tokens;
    if (target != NULL) {
        s->corpus[1] = target->corpus;
        s->tokens[1] = *target->tokens;
    }
    s->options = *options;
    s->input_key = rp_rng_key(options->seed, RP_PURPOSE_INPUT, 0);
    s->mlm_key = rp_rng_key(options->seed, RP_PURPOSE_MLM, 0);
    s->span_key = rp_rng_key(options->seed, RP_PURPOSE_MLM, 1);
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
    for (int i = 0; i < RP_SOURCES; i++) rp_source_close(&s->source[i]);
    free(s->draws);
    free(s->scratch);
    free(s);
}

void rp_sampler_counts(const rp_sampler *s, int64_t source, rp_source_counts *counts) {
    *counts = s->source[source].counts;
}
