#include "encode.h"

#include <stdlib.h>

#include "arena.h"
#include "threads.h"

struct rp_encode_run {
    const rp_model *model;
    rp_dev *dev;
    int64_t max_sequences, max_tokens, owner;
    void *memory;
    rp_network network;
    float *vectors; /* (max_sequences, widest representation) */
    rp_batch *batch;
};

static void plan(rp_encode_run *run, rp_arena *arena) {
    size_t widest = (size_t)rp_network_sizes_of(run->model->params).most_dim;
    rp_capacity most = {.sequences = run->max_sequences, .tokens = run->max_tokens, .products = run->dev->products};
    rp_network_plan(&run->network, arena, &most);
    run->vectors = rp_arena_take(arena, (size_t)run->max_sequences, widest * sizeof(float));
}

static rp_status allocate(rp_encode_run *run, int64_t num_threads, rp_dtype dtype) {
    rp_network_sizes sizes = rp_network_sizes_of(run->model->params);
    int64_t longest = sizes.positions < run->max_tokens ? sizes.positions : run->max_tokens;
    rp_arena measure = {0};
    RP_TRY(rp_dev_open(&run->dev, run->model->backend, num_threads));
    run->dev->products = dtype;
    RP_TRY(rp_network_open(&run->network, run->model));
    plan(run, &measure);
    RP_TRY(rp_arena_check(&measure));
    RP_TRY(run->dev->ops->alloc(run->dev, &run->memory, (int64_t)measure.used));
    rp_arena bound = {.base = run->memory, .capacity = measure.used};
    plan(run, &bound);
    RP_TRY(rp_arena_check(&bound));
    const rp_extent most = {.rows = run->max_tokens > run->max_sequences ? run->max_tokens : run->max_sequences,
                            .widest = sizes.widest,
                            .weight = sizes.weight,
                            .max_len = longest,
                            .head_size = sizes.head_size};
    RP_TRY(rp_dev_reserve(run->dev, &most));
    return rp_batch_new(&run->batch, run->max_sequences, run->max_tokens);
}

rp_status rp_encode_run_new(rp_encode_run **out, const rp_model *model, int64_t max_sequences, int64_t max_tokens,
                            int64_t num_threads, rp_dtype dtype, int (*poll)(void *), void *poll_context) {
    if (max_sequences < 1 || max_tokens < 1 || max_tokens > INT32_MAX)
        return rp_fail(RP_STATUS_VALUE, "capacity of %lld sequences and %lld tokens: expected at least 1 of each",
                       (long long)max_sequences, (long long)max_tokens);
    rp_encode_run *run = calloc(1, sizeof *run);
    if (run == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a run handle");
    run->model = model;
    run->max_sequences = max_sequences;
    run->max_tokens = max_tokens;
    run->owner = rp_threads_pid();
    rp_status status = allocate(run, num_threads, dtype);
    if (status != RP_OK) {
        rp_encode_run_free(run);
        return status;
    }
    run->dev->poll = poll;
    run->dev->poll_context = poll_context;
    *out = run;
    return RP_OK;
}

void rp_encode_run_free(rp_encode_run *run) {
    if (run == NULL) return;
    rp_batch_free(run->batch);
    if (run->memory != NULL) run->dev->ops->release(run->dev, run->memory);
    rp_dev_close(run->dev);
    rp_network_close(&run->network);
    free(run);
}

static rp_status keep_weights(rp_encode_run *run) {
    const rp_model *model = run->model;
    return run->dev->ops->keep_weights(run->dev, model->values, model->params->total, model->version);
}

/* Vectors of the batch to out. */
static rp_status flush(rp_encode_run *run, const rp_represent *spec, float *out) {
    const rp_params *params = run->model->params;
    rp_pass pass = {0};
    rp_reads also = {0};
    RP_TRY(
        rp_network_forward(&run->network, run->dev, run->vectors, run->model->values, run->batch, spec, &also, &pass));
    return run->dev->ops->download(run->dev, out, run->vectors,
                                   run->batch->S * rp_network_dim(params, spec) * (int64_t)sizeof(float));
}

/* Tags that the network reads have to be there, and known to it. */
static rp_status check_tags(const rp_network_sizes *sizes, const rp_corpus *corpus) {
    static const char *const names[RP_TAGS] = {"POS", "NER"};
    for (int k = 0; k < RP_TAGS; k++) {
        if (sizes->tag_count[k] == 0) continue;
        if (corpus->a.tags[k] == NULL)
            return rp_fail(RP_STATUS_VALUE, "the corpus has no %s tags, and the network reads them", names[k]);
        if (corpus->a.n_tags[k] > sizes->tag_count[k])
            return rp_fail(RP_STATUS_VALUE, "the corpus has %d %s tags, the network %lld", (int)corpus->a.n_tags[k],
                           names[k], (long long)sizes->tag_count[k]);
    }
    return RP_OK;
}

static rp_status check_rows(const rp_encode_run *run, const rp_corpus *corpus, const rp_tokens *tokens,
                            const int64_t *rows, int64_t n, int64_t max_length) {
    rp_network_sizes sizes = rp_network_sizes_of(run->model->params);
    int64_t most = sizes.positions < run->max_tokens ? sizes.positions : run->max_tokens;
    if (max_length < 16 || max_length > most)
        return rp_fail(RP_STATUS_VALUE, "max_length is %lld, expected 16 to %lld", (long long)max_length,
                       (long long)most);
    if (corpus->a.vocab_size > sizes.vocab_size || tokens->vocab_size > sizes.vocab_size)
        return rp_fail(RP_STATUS_VALUE,
                       "the corpus was tokenized with a vocabulary of %lld, the model's has %lld; tokenize it "
                       "with this encoder",
                       (long long)corpus->a.vocab_size, (long long)sizes.vocab_size);
    if (tokens->bare != sizes.bare)
        return rp_fail(RP_STATUS_VALUE, "tokens: bare is %d; this network takes %d", tokens->bare, sizes.bare);
    RP_TRY(check_tags(&sizes, corpus));
    for (int64_t i = 0; i < n; i++)
        if (rows[i] < 0 || rows[i] >= corpus->a.n)
            return rp_fail(RP_STATUS_VALUE, "rows[%lld] is %lld, the corpus has %lld sentences", (long long)i,
                           (long long)rows[i], (long long)corpus->a.n);
    return RP_OK;
}

rp_status rp_encode_rows(rp_encode_run *run, const rp_represent *spec, float *out, rp_encode_counts *counts,
                         const rp_corpus *corpus, const rp_tokens *tokens, const int64_t *rows, int64_t n,
                         rp_input input, int64_t max_length) {
    RP_TRY(rp_threads_check_pid(run->owner));
    RP_TRY(rp_represent_check(spec));
    RP_TRY(rp_tokens_check(tokens));
    RP_TRY(check_rows(run, corpus, tokens, rows, n, max_length));
    RP_TRY(keep_weights(run));
    int64_t dim = rp_network_dim(run->model->params, spec);
    for (int64_t done = 0; done < n;) {
        rp_batch_clear(run->batch);
        int64_t first = done;
        for (; done < n && run->batch->S < run->max_sequences && run->batch->T + max_length <= run->max_tokens;
             done++) {
            rp_sample sample = {.row = rows[done], .input = input};
            RP_TRY(rp_batch_add(run->batch, corpus, tokens, &sample, max_length, (int32_t)(done - first)));
        }
        RP_TRY(flush(run, spec, out + first * dim));
        counts->tokens += run->batch->T;
        counts->truncated += run->batch->truncated;
        counts->truncated_mentions += run->batch->truncated_mentions;
    }
    return RP_OK;
}

static rp_status check_ids(const rp_encode_run *run, const int32_t *ids, const int32_t *cu_seqlens, int64_t S) {
    const rp_config *c = &run->model->params->config;
    if (S < 1 || S > run->max_sequences || cu_seqlens[0] != 0 || cu_seqlens[S] > run->max_tokens)
        return rp_fail(RP_STATUS_VALUE,
                       "cu_seqlens: %lld sequences, %d tokens, start %d; this run takes 1 to %lld sequences, "
                       "up to %lld tokens, from 0",
                       (long long)S, (int)cu_seqlens[S], (int)cu_seqlens[0], (long long)run->max_sequences,
                       (long long)run->max_tokens);
    for (int64_t s = 0; s < S; s++) {
        int64_t n = (int64_t)cu_seqlens[s + 1] - cu_seqlens[s];
        if (n < 1 || n > rp_config_positions(c))
            return rp_fail(RP_STATUS_VALUE, "sequence %lld has %lld tokens, expected 1 to %lld", (long long)s,
                           (long long)n, (long long)rp_config_positions(c));
    }
    for (int64_t t = 0; t < cu_seqlens[S]; t++)
        if (ids[t] < 0 || ids[t] >= c->vocab_size)
            return rp_fail(RP_STATUS_VALUE, "ids[%lld] is %d, the vocabulary has %lld", (long long)t, (int)ids[t],
                           (long long)c->vocab_size);
    return RP_OK;
}

rp_status rp_encode_ids(rp_encode_run *run, float *out, const int32_t *ids, const int32_t *cu_seqlens, int64_t S) {
    RP_TRY(rp_threads_check_pid(run->owner));
    if (run->model->params->cnn != NULL) return rp_fail(RP_STATUS_VALUE, "a CNN has no hidden states of tokens");
    RP_TRY(check_ids(run, ids, cu_seqlens, S));
    RP_TRY(keep_weights(run));
    rp_batch *b = run->batch;
    rp_batch_clear(b);
    b->S = (int32_t)S;
    b->T = cu_seqlens[S];
    for (int32_t s = 0; s < S; s++) {
        b->sample[s] = s;
        b->head[s] = b->tail[s] = cu_seqlens[s];
        b->prompt_row[s] = -1;
        b->relation[s] = 0;
        for (int32_t t = cu_seqlens[s]; t < cu_seqlens[s + 1]; t++) {
            b->ids[t] = ids[t];
            b->pos[t] = t - cu_seqlens[s];
            b->sequence[t] = s;
        }
        b->cu_seqlens[s + 1] = cu_seqlens[s + 1];
    }
    b->cu_seqlens[0] = 0;
    rp_reads reads = {.all = true};
    rp_pass pass = {0};
    rp_network *n = &run->network;
    RP_TRY(rp_inputs_upload(&n->inputs, run->dev, b, &reads));
    n->injection.K = 0; /* there are no mentions */
    RP_TRY(rp_encoder_forward(&n->encoder, run->dev, run->model->values, &n->inputs, &pass));
    return run->dev->ops->download(run->dev, out, n->encoder.hidden,
                                   b->T * run->model->params->config.hidden_size * (int64_t)sizeof(float));
}
