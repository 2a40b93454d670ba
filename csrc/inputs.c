#include "inputs.h"

#include <string.h>

/* -- memory ----------------------------------------------------------------------------------------------- */

static int32_t *take(rp_arena *arena, int64_t count) { return rp_arena_take(arena, (size_t)count, sizeof(int32_t)); }

/* The arrays of so many sequences, tokens, rows and masked tokens, one behind the other. */
static void lay_out(rp_inputs *in, rp_arena *arena, int64_t S, int64_t sequences, int64_t T, int64_t R, int64_t M) {
    in->step = take(arena, 1);
    in->cu_seqlens = take(arena, sequences + 1);
    in->cu_read = take(arena, sequences + 1);
    in->sample = take(arena, sequences);
    in->ids = take(arena, T);
    in->pos = take(arena, T);
    in->sequence = take(arena, T);
    in->read = take(arena, R);
    in->read_pos = take(arena, R);
    in->read_sequence = take(arena, R);
    int32_t **const of_sequences[] = {&in->head,     &in->tail,     &in->head_first, &in->tail_first,
                                      &in->head_end, &in->tail_end, &in->relation,   &in->prompt_row};
    for (size_t i = 0; i < sizeof of_sequences / sizeof *of_sequences; i++) *of_sequences[i] = take(arena, S);
    int32_t **const of_masked[] = {&in->mlm_row, &in->mlm_label, &in->span_left, &in->span_right, &in->span_place};
    for (size_t i = 0; i < sizeof of_masked / sizeof *of_masked; i++) *of_masked[i] = take(arena, M);
}

void rp_inputs_plan(rp_inputs *in, rp_arena *arena, int64_t max_sequences, int64_t max_tokens) {
    rp_arena batch = {0};
    lay_out(in, &batch, max_sequences, max_sequences + RP_INPUTS_FILL_SEQUENCES, max_tokens, max_tokens, max_tokens);
    in->most_sequences = max_sequences;
    in->most_tokens = max_tokens;
    in->bytes = batch.used;
    in->memory = rp_arena_take(arena, 1, batch.used);
}

void rp_inputs_close(rp_inputs *in) {
    rp_aligned_free(in->host);
    in->host = NULL;
}

/* -- what fills a batch up -------------------------------------------------------------------------------- */

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Tokens that fill the batch up to a multiple of `bucket`, and how many of them are among the rows that are read, so
 * that these come in multiples too where they are not all. 0: the batch stays as it is. */
static int64_t filling(const rp_inputs *in, const rp_batch *batch, int64_t bucket, int64_t *read) {
    int64_t T = batch->T, R = batch->R;
    *read = R < T ? round_up(R, bucket) - R : 0;
    int64_t least = *read > RP_INPUTS_FILL_SEQUENCES ? *read : RP_INPUTS_FILL_SEQUENCES;
    int64_t filled = round_up(T + least, bucket), more = filled - T;
    if (R == T) *read = more;
    bool fits = filled <= in->most_tokens && more <= RP_INPUTS_FILL_SEQUENCES * RP_INPUTS_FILL_LENGTH;
    return T > 0 && fits && filled <= RP_INPUTS_FILL_TOKENS ? more : 0;
}

/* `more` tokens, the first `read` of them read, in RP_INPUTS_FILL_SEQUENCES sequences behind those of the batch. */
static void fill_up(const rp_inputs *host, const rp_batch *batch, int64_t more, int64_t read) {
    int32_t S = batch->S, T = batch->T, R = batch->R, count = RP_INPUTS_FILL_SEQUENCES;
    for (int32_t i = 0; i < count; i++) {
        int32_t first = (int32_t)(i * more / count), end = (int32_t)((i + 1) * more / count);
        host->sample[S + i] = 0;
        host->cu_seqlens[S + i + 1] = T + end;
        host->cu_read[S + i + 1] = R + (int32_t)(end < read ? end : read);
        for (int32_t t = first; t < end; t++) {
            host->ids[T + t] = 0;
            host->pos[T + t] = t - first;
            host->sequence[T + t] = S + i;
            if (t >= read) continue;
            host->read[R + t] = T + t;
            host->read_pos[R + t] = t - first;
            host->read_sequence[R + t] = S + i;
        }
    }
}

/* -- upload ------------------------------------------------------------------------------------------------ */

static rp_status check_prompts(const rp_batch *batch) {
    for (int32_t s = 0; s < batch->S; s++)
        if (batch->prompt_row[s] < 0)
            return rp_fail(RP_STATUS_VALUE, "the representation reads the [MASK] of a prompt, and the input has no "
                                            "prompt; open the encoder with one, or leave out \"mask\"");
    return RP_OK;
}

static void copy(int32_t *out, const int32_t *from, int32_t count) {
    if (count > 0) memcpy(out, from, (size_t)count * sizeof *out);
}

/* The batch's integers in the host's copy. */
static void gather(const rp_inputs *host, const rp_batch *batch, const rp_reads *reads, uint32_t step) {
    int32_t S = batch->S, T = batch->T, M = batch->M, R = batch->R;
    *host->step = (int32_t)step;
    copy(host->cu_seqlens, batch->cu_seqlens, S + 1);
    copy(host->cu_read, batch->cu_read, S + 1);
    copy(host->sample, batch->sample, S);
    copy(host->ids, batch->ids, T);
    copy(host->pos, batch->pos, T);
    copy(host->sequence, batch->sequence, T);
    copy(host->read, batch->read, R);
    copy(host->read_pos, batch->read_pos, R);
    copy(host->read_sequence, batch->read_sequence, R);
    copy(host->head, batch->head, S);
    copy(host->tail, batch->tail, S);
    copy(host->relation, batch->relation, S);
    copy(host->prompt_row, batch->prompt_row, S);
    copy(host->mlm_row, batch->mlm_row, M);
    copy(host->mlm_label, batch->mlm_label, M);
    if (reads->mentions) {
        copy(host->head_first, batch->head_first, S);
        copy(host->tail_first, batch->tail_first, S);
        copy(host->head_end, batch->head_end, S);
        copy(host->tail_end, batch->tail_end, S);
    }
    if (!reads->outside) return;
    copy(host->span_left, batch->span_left, M);
    copy(host->span_right, batch->span_right, M);
    copy(host->span_place, batch->span_place, M);
}

rp_status rp_inputs_upload(rp_inputs *in, rp_dev *dev, rp_batch *batch, const rp_reads *reads, uint32_t step,
                           bool fill) {
    if (reads->prompt) RP_TRY(check_prompts(batch));
    if (in->host == NULL) in->host = rp_aligned_alloc(in->bytes);
    if (in->host == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for %zu bytes of a batch's copy", in->bytes);
    rp_batch_read(batch, reads);
    int64_t read = 0, more = fill && dev->ops->bucket > 0 ? filling(in, batch, dev->ops->bucket, &read) : 0;
    in->filled = more > 0;
    in->S = batch->S;
    in->M = batch->M;
    in->sequences = batch->S + (in->filled ? RP_INPUTS_FILL_SEQUENCES : 0);
    in->T = batch->T + more;
    in->R = batch->R + (in->filled ? read : 0);
    rp_inputs host = *in;
    rp_arena there = {.base = in->memory, .capacity = in->bytes}, here = {.base = in->host, .capacity = in->bytes};
    lay_out(in, &there, in->S, in->sequences, in->T, in->R, in->M);
    lay_out(&host, &here, in->S, in->sequences, in->T, in->R, in->M);
    RP_TRY(rp_arena_check(&there));
    gather(&host, batch, reads, step);
    if (in->filled) fill_up(&host, batch, more, read);
    return dev->ops->upload(dev, in->memory, in->host, (int64_t)there.used);
}
