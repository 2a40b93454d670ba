/* Every thread takes sequences of its own through the whole network: what passes from layer to layer stays in its
 * cache, and nobody waits for others before the call's end. Where a back end computes by other means than the host's
 * threads, one worker takes all, and gathers a batch while the one before is computed. */
#include "encode.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena.h"
#include "threads.h"

/* One of those that take sequences from a call: a device and a workspace. */
typedef struct worker {
    struct rp_encode_run *run;
    rp_dev *dev;
    void *memory;
    rp_network network;
    float *vectors; /* (max_sequences, widest representation) */
    rp_batch *batch;
    int64_t *place;    /* (max_sequences) of the batch's sequences in the call */
    int64_t *computed; /* (max_sequences) the same of the batch whose results are not written yet, */
    int64_t waiting;   /* and how many these are */
    rp_encode_counts counts;
    rp_status status;  /* of the call, with its message, */
    int64_t failed_at; /* and the sequence that it failed at */
    char message[2048];
} worker;

struct rp_encode_run {
    const rp_model *model;
    int64_t max_sequences, max_tokens, owner;
    int64_t count;
    worker *workers; /* (count) */
    int (*poll)(void *);
    void *poll_context;
    atomic_bool stop, interrupted; /* the call's: somebody failed; the caller's poll said so */
    atomic_llong next;             /* the call's first sequence that nobody has taken */
};

/* -- opening ---------------------------------------------------------------------------------------------- */

static void plan(worker *w, rp_arena *arena) {
    const rp_encode_run *run = w->run;
    size_t widest = (size_t)rp_network_sizes_of(run->model->params).most_dim;
    rp_capacity most = {.sequences = run->max_sequences, .tokens = run->max_tokens, .products = w->dev->products};
    rp_network_plan(&w->network, arena, &most);
    w->vectors = rp_arena_take(arena, (size_t)run->max_sequences, widest * sizeof(float));
}

/* Asked by every worker's device; the caller's poll belongs to the caller's thread, which is the first worker's. */
static int should_stop(void *context) {
    const worker *w = context;
    rp_encode_run *run = w->run;
    if (w == run->workers && run->poll != NULL && run->poll(run->poll_context) != 0) {
        atomic_store(&run->interrupted, true);
        atomic_store(&run->stop, true);
    }
    return atomic_load(&run->stop);
}

static rp_status open_worker(worker *w, rp_encode_run *run, int64_t num_threads, rp_dtype dtype) {
    rp_network_sizes sizes = rp_network_sizes_of(run->model->params);
    int64_t longest = sizes.positions < run->max_tokens ? sizes.positions : run->max_tokens;
    rp_arena measure = {0};
    w->run = run;
    RP_TRY(rp_dev_open(&w->dev, run->model->backend, num_threads));
    w->dev->products = dtype;
    w->dev->poll = should_stop;
    w->dev->poll_context = w;
    RP_TRY(rp_network_open(&w->network, run->model));
    plan(w, &measure);
    RP_TRY(rp_arena_check(&measure));
    RP_TRY(w->dev->ops->alloc(w->dev, &w->memory, (int64_t)measure.used));
    rp_arena bound = {.base = w->memory, .capacity = measure.used};
    plan(w, &bound);
    RP_TRY(rp_arena_check(&bound));
    const rp_extent most = {.rows = run->max_tokens > run->max_sequences ? run->max_tokens : run->max_sequences,
                            .widest = sizes.widest,
                            .weight = sizes.weight,
                            .max_len = longest,
                            .head_size = sizes.head_size};
    RP_TRY(rp_dev_reserve(w->dev, &most));
    w->place = calloc((size_t)run->max_sequences, sizeof *w->place);
    w->computed = calloc((size_t)run->max_sequences, sizeof *w->computed);
    if (w->place == NULL || w->computed == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a batch's places");
    return rp_batch_new(&w->batch, run->max_sequences, run->max_tokens);
}

static void close_worker(worker *w) {
    rp_batch_free(w->batch);
    free(w->place);
    free(w->computed);
    if (w->memory != NULL) w->dev->ops->release(w->dev, w->memory);
    if (w->dev != NULL && w != w->run->workers) w->dev->kept = NULL; /* the first worker's */
    rp_dev_close(w->dev);
    rp_network_close(&w->network);
}

static rp_status open_workers(rp_encode_run *run, int64_t num_threads, rp_dtype dtype) {
    const rp_ops *ops = rp_ops_find(run->model->backend);
    if (ops == NULL) return RP_STATUS_STATE; /* rp_ops_find has written the message */
    int64_t count = ops->concurrent ? num_threads : 1;
    run->workers = calloc((size_t)count, sizeof *run->workers);
    if (run->workers == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for %lld workers", (long long)count);
    for (; run->count < count; run->count++) {
        rp_status status = open_worker(&run->workers[run->count], run, ops->concurrent ? 1 : num_threads, dtype);
        if (status == RP_OK) continue;
        close_worker(&run->workers[run->count]);
        return status;
    }
    return RP_OK;
}

rp_status rp_encode_run_new(rp_encode_run **out, const rp_model *model, int64_t max_sequences, int64_t max_tokens,
                            int64_t num_threads, rp_dtype dtype, int (*poll)(void *), void *poll_context) {
    if (max_sequences < 1 || max_tokens < 1 || max_tokens > INT32_MAX)
        return rp_fail(RP_STATUS_VALUE, "capacity of %lld sequences and %lld tokens: expected at least 1 of each",
                       (long long)max_sequences, (long long)max_tokens);
    if (num_threads < 1 || num_threads > 4096)
        return rp_fail(RP_STATUS_VALUE, "num_threads is %lld, expected 1 to 4096", (long long)num_threads);
    if ((int)dtype < 0 || dtype > RP_TF32)
        return rp_fail(RP_STATUS_VALUE, "dtype is %d, expected 0 to %d", (int)dtype, RP_TF32);
    RP_TRY(rp_threads_begin(num_threads));
    rp_encode_run *run = calloc(1, sizeof *run);
    if (run == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a run handle");
    run->model = model;
    run->max_sequences = max_sequences;
    run->max_tokens = max_tokens;
    run->owner = rp_threads_pid();
    run->poll = poll;
    run->poll_context = poll_context;
    rp_status status = open_workers(run, num_threads, dtype);
    if (status != RP_OK) {
        rp_encode_run_free(run);
        return status;
    }
    *out = run;
    return RP_OK;
}

void rp_encode_run_free(rp_encode_run *run) {
    if (run == NULL) return;
    while (run->count > 0) close_worker(&run->workers[--run->count]); /* the first one last */
    free(run->workers);
    free(run);
}

/* -- a call, from one worker to all ----------------------------------------------------------------------- */

/* What a call encodes: n sequences of at most `longest` tokens. */
typedef struct call {
    int64_t n, longest;
    rp_status (*add)(worker *w, const struct call *c, int64_t i); /* sequence i to the worker's batch */
    rp_status (*compute)(worker *w, const struct call *c);        /* the batch */
    rp_status (*write)(worker *w, const struct call *c);          /* what waits, to out */
    float *out;
    const rp_represent *spec; /* of rp_encode_rows, as are the next four */
    const rp_corpus *corpus;
    const rp_tokens *tokens;
    const int64_t *rows;
    rp_input input;
    const int32_t *ids, *cu_seqlens; /* of rp_encode_ids */
} call;

/* How many sequences a worker takes for its next batch, at most: fewer towards the end, so that all end together. */
static int64_t share_of(const rp_encode_run *run, int64_t n) {
    int64_t left = n - (int64_t)atomic_load(&run->next), share = left / (2 * run->count);
    return run->count == 1 ? n : share > 1 ? share : 1;
}

static rp_status compute(worker *w, const call *c) {
    int64_t *used = w->computed;
    RP_TRY(c->compute(w, c));
    w->computed = w->place;
    w->place = used;
    w->waiting = w->batch->S;
    return RP_OK;
}

static rp_status write(worker *w, const call *c) {
    RP_TRY(c->write(w, c));
    w->waiting = 0;
    return RP_OK;
}

/* Takes sequences and computes them until there are no more. What is taken is added at once: then the first sequence
 * that cannot be is found, whoever takes it. */
static rp_status work(worker *w, const call *c) {
    rp_encode_run *run = w->run;
    const rp_batch *b = w->batch;
    do {
        int64_t share = share_of(run, c->n);
        rp_batch_clear(w->batch);
        while (b->S < share && b->S < run->max_sequences && b->T + c->longest <= run->max_tokens) {
            int64_t i = (int64_t)atomic_fetch_add(&run->next, 1);
            if (i >= c->n) break;
            w->failed_at = i;
            w->place[b->S] = i;
            RP_TRY(c->add(w, c, i));
        }
        w->failed_at = c->n;
        if (w->waiting > 0) RP_TRY(write(w, c));
        if (b->S > 0) RP_TRY(compute(w, c));
    } while (b->S > 0);
    return RP_OK;
}

static rp_status keep_weights(rp_encode_run *run) {
    const rp_model *model = run->model;
    rp_dev *first = run->workers[0].dev;
    RP_TRY(first->ops->keep_weights(first, model->values, model->params->total, model->version));
    for (int64_t i = 1; i < run->count; i++) run->workers[i].dev->kept = first->kept;
    return RP_OK;
}

/* The failure of the first sequence that failed: always the same one. */
static rp_status outcome(const rp_encode_run *run) {
    const worker *failed = NULL;
    if (atomic_load(&run->interrupted)) return rp_fail(RP_STATUS_INTERRUPT, "interrupted");
    for (const worker *w = run->workers; w < run->workers + run->count; w++)
        if (w->status != RP_OK && w->status != RP_STATUS_INTERRUPT)
            if (failed == NULL || w->failed_at < failed->failed_at) failed = w;
    return failed == NULL ? RP_OK : rp_fail(failed->status, "%s", failed->message);
}

static rp_status run_call(rp_encode_run *run, const call *c) {
    RP_TRY(keep_weights(run));
    atomic_store(&run->next, 0);
    atomic_store(&run->stop, false);
    atomic_store(&run->interrupted, false);
    for (worker *w = run->workers; w < run->workers + run->count; w++) {
        w->counts = (rp_encode_counts){0};
        w->status = RP_OK;
        w->waiting = 0;
    }
#pragma omp parallel num_threads((int)run->count)
    {
        worker *w = &run->workers[omp_get_thread_num()];
        w->status = work(w, c);
        if (w->status != RP_OK) {
            snprintf(w->message, sizeof w->message, "%s", rp_message());
            atomic_store(&run->stop, true);
        }
    }
    return outcome(run);
}

/* -- rows of a corpus ------------------------------------------------------------------------------------- */

static rp_status check_rows(const rp_encode_run *run, const rp_corpus *corpus, const rp_tokens *tokens,
                            const int64_t *rows, int64_t n, int64_t max_length) {
    rp_network_sizes sizes = rp_network_sizes_of(run->model->params);
    int64_t most = sizes.positions < run->max_tokens ? sizes.positions : run->max_tokens;
    if (max_length < 16 || max_length > most)
        return rp_fail(RP_STATUS_VALUE, "max_length is %lld, expected 16 to %lld", (long long)max_length,
                       (long long)most);
    const rp_origin of = rp_origin_of(corpus, tokens);
    RP_TRY(rp_network_check_origin(&sizes, &of));
    for (int64_t i = 0; i < n; i++)
        if (rows[i] < 0 || rows[i] >= corpus->a.n)
            return rp_fail(RP_STATUS_VALUE, "rows[%lld] is %lld, the corpus has %lld sentences", (long long)i,
                           (long long)rows[i], (long long)corpus->a.n);
    return RP_OK;
}

static rp_status add_row(worker *w, const call *c, int64_t i) {
    rp_sample sample = {.row = c->rows[i], .input = c->input};
    return rp_batch_add(w->batch, c->corpus, c->tokens, &sample, c->longest, w->batch->S);
}

static rp_status compute_rows(worker *w, const call *c) {
    const rp_model *model = w->run->model;
    const rp_batch *b = w->batch;
    rp_pass pass = {0};
    rp_reads also = {0};
    RP_TRY(rp_network_forward(&w->network, w->dev, w->vectors, model->values, w->batch, c->spec, &also, &pass));
    w->counts.tokens += b->T;
    w->counts.truncated += b->truncated;
    w->counts.truncated_mentions += b->truncated_mentions;
    return RP_OK;
}

static rp_status write_rows(worker *w, const call *c) {
    int64_t dim = rp_network_dim(w->run->model->params, c->spec);
    for (int64_t first = 0, end; first < w->waiting; first = end) { /* neighbours at once */
        for (end = first + 1; end < w->waiting && w->computed[end] == w->computed[end - 1] + 1;) end++;
        RP_TRY(w->dev->ops->download(w->dev, c->out + w->computed[first] * dim, w->vectors + first * dim,
                                     (end - first) * dim * (int64_t)sizeof(float)));
    }
    return RP_OK;
}

rp_status rp_encode_rows(rp_encode_run *run, const rp_represent *spec, float *out, rp_encode_counts *counts,
                         const rp_corpus *corpus, const rp_tokens *tokens, const int64_t *rows, int64_t n,
                         rp_input input, int64_t max_length) {
    RP_TRY(rp_threads_check_pid(run->owner));
    RP_TRY(rp_represent_check(spec));
    RP_TRY(rp_tokens_check(tokens));
    RP_TRY(check_rows(run, corpus, tokens, rows, n, max_length));
    call c = {.n = n, .longest = max_length, .add = add_row, .compute = compute_rows, .write = write_rows, .out = out};
    c.spec = spec;
    c.corpus = corpus;
    c.tokens = tokens;
    c.rows = rows;
    c.input = input;
    RP_TRY(run_call(run, &c));
    for (const worker *w = run->workers; w < run->workers + run->count; w++) {
        counts->tokens += w->counts.tokens;
        counts->truncated += w->counts.truncated;
        counts->truncated_mentions += w->counts.truncated_mentions;
    }
    return RP_OK;
}

/* -- token ids -------------------------------------------------------------------------------------------- */

static rp_status check_ids(const rp_encode_run *run, const int32_t *ids, const int32_t *cu_seqlens, int64_t S) {
    const rp_config *c = &run->model->params->config;
    int64_t positions = rp_config_positions(c), most = positions < run->max_tokens ? positions : run->max_tokens;
    if (S < 1 || cu_seqlens[0] != 0)
        return rp_fail(RP_STATUS_VALUE, "cu_seqlens: %lld sequences, start %d; expected at least 1, from 0",
                       (long long)S, (int)cu_seqlens[0]);
    for (int64_t s = 0; s < S; s++) {
        int64_t n = (int64_t)cu_seqlens[s + 1] - cu_seqlens[s];
        if (n < 1 || n > most)
            return rp_fail(RP_STATUS_VALUE, "sequence %lld has %lld tokens, expected 1 to %lld", (long long)s,
                           (long long)n, (long long)most);
    }
    for (int64_t t = 0; t < cu_seqlens[S]; t++)
        if (ids[t] < 0 || ids[t] >= c->vocab_size)
            return rp_fail(RP_STATUS_VALUE, "ids[%lld] is %d, the vocabulary has %lld", (long long)t, (int)ids[t],
                           (long long)c->vocab_size);
    return RP_OK;
}

static rp_status add_ids(worker *w, const call *c, int64_t i) {
    rp_batch *b = w->batch;
    int32_t s = b->S++, first = c->cu_seqlens[i], n = c->cu_seqlens[i + 1] - first;
    b->sample[s] = s;
    b->head[s] = b->tail[s] = b->T;
    b->prompt_row[s] = -1;
    b->relation[s] = 0;
    b->cu_seqlens[s] = b->T;
    for (int32_t pos = 0; pos < n; pos++, b->T++) {
        b->ids[b->T] = c->ids[first + pos];
        b->pos[b->T] = pos;
        b->sequence[b->T] = s;
    }
    b->cu_seqlens[s + 1] = b->T;
    return RP_OK;
}

static rp_status compute_ids(worker *w, const call *c) {
    rp_network *n = &w->network;
    rp_reads reads = {.all = true};
    rp_pass pass = {0};
    (void)c;
    RP_TRY(rp_inputs_upload(&n->inputs, w->dev, w->batch, &reads, 0, rp_encoder_may_fill(n->params)));
    n->injection.K = 0; /* there are no mentions */
    return rp_encoder_forward(&n->encoder, w->dev, w->run->model->values, &n->inputs, &pass);
}

static rp_status write_ids(worker *w, const call *c) {
    int64_t H = w->run->model->params->config.hidden_size;
    const float *hidden = w->network.encoder.hidden;
    for (int64_t i = 0; i < w->waiting; i++) {
        const int32_t *bounds = c->cu_seqlens + w->computed[i];
        int64_t numbers = (bounds[1] - bounds[0]) * H;
        RP_TRY(w->dev->ops->download(w->dev, c->out + bounds[0] * H, hidden, numbers * (int64_t)sizeof(float)));
        hidden += numbers;
    }
    return RP_OK;
}

rp_status rp_encode_ids(rp_encode_run *run, float *out, const int32_t *ids, const int32_t *cu_seqlens, int64_t S) {
    RP_TRY(rp_threads_check_pid(run->owner));
    if (run->model->params->cnn != NULL) return rp_fail(RP_STATUS_VALUE, "a CNN has no hidden states of tokens");
    RP_TRY(check_ids(run, ids, cu_seqlens, S));
    call c = {.n = S,
              .add = add_ids,
              .compute = compute_ids,
              .write = write_ids,
              .out = out,
              .ids = ids,
              .cu_seqlens = cu_seqlens};
    for (int64_t s = 0; s < S; s++)
        if (cu_seqlens[s + 1] - cu_seqlens[s] > c.longest) c.longest = cu_seqlens[s + 1] - cu_seqlens[s];
    return run_call(run, &c);
}
