#include "masking.h"

#include <inttypes.h>
#include <string.h>

#include "rng.h"

/* A random id that is not special; `old` when 64 draws met none (nearly all of the vocabulary is special). */
static int32_t random_word(rp_rng *rng, const rp_tokens *tokens, int32_t old) {
    for (int i = 0; i < 64; i++) {
        int32_t id = (int32_t)rp_rng_below(rng, (uint32_t)tokens->vocab_size);
        if (!tokens->special[id]) return id;
    }
    return old;
}

/* Replaces the token at row t, of a span between rows `left` and `right`, as its fate of 0 .. 9 says. */
static void mask_token(rp_batch *batch, const rp_tokens *tokens, rp_rng *rng, uint32_t fate, int32_t t, int32_t left,
                       int32_t right) {
    int32_t id = batch->ids[t];
    if (fate < 8)
        batch->ids[t] = tokens->mask;
    else if (fate == 8)
        batch->ids[t] = random_word(rng, tokens, id);
    batch->span_left[batch->M] = left;
    batch->span_right[batch->M] = right;
    batch->span_place[batch->M] = t - left <= RP_SPAN_PLACES ? t - left - 1 : RP_SPAN_PLACES - 1;
    batch->mlm_row[batch->M] = t;
    batch->mlm_label[batch->M++] = id;
}

/* -- words ----------------------------------------------------------------------------------------------- */

/* Every token has a stream of its own, row = its place in the sequence, so that its fate is a function of (key, step,
 * sample number, place): first the choice, then which of the three, then the word. */
void rp_mask_words(rp_batch *batch, const rp_tokens *tokens, int32_t s, double probability, uint64_t key,
                   uint32_t step) {
    for (int32_t t = batch->cu_seqlens[s]; t < batch->cu_seqlens[s + 1]; t++) {
        if (!batch->text[t] || tokens->special[batch->ids[t]]) continue;
        rp_rng rng = rp_rng_stream(key, step, (uint32_t)batch->sample[s], (uint32_t)batch->pos[t]);
        if (rp_rng_unit(&rng) >= probability) continue;
        uint32_t fate = rp_rng_below(&rng, 10);
        mask_token(batch, tokens, &rng, fate, t, t - 1, t + 1);
    }
}

/* -- spans ----------------------------------------------------------------------------------------------- */

static rp_status check_unit(double value, const char *name) {
    if (value >= 0 && value <= 1) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%s is %g; expected 0 .. 1", name, value);
}

rp_status rp_span_masking_check(const rp_span_masking *o, const rp_tokens *tokens) {
    RP_TRY(check_unit(o->mention_probability, "mention_probability"));
    RP_TRY(check_unit(o->relation_probability, "relation_probability"));
    if (o->mention_probability == 0 && o->relation_probability == 0) return RP_OK;
    if (!(o->length_p > 0 && o->length_p <= 1))
        return rp_fail(RP_STATUS_VALUE, "length_p is %g; expected above 0, at most 1", o->length_p);
    if (o->longest < 1 || o->longest > RP_BATCH_MAX_LENGTH)
        return rp_fail(RP_STATUS_VALUE, "longest is %" PRId64 "; expected 1 .. %d words", o->longest,
                       RP_BATCH_MAX_LENGTH);
    if (tokens->bare)
        return rp_fail(RP_STATUS_VALUE, "spans are masked between markers, and these sequences have none; mask words");
    return RP_OK;
}

/* Rows first .. end, which no span has yet. */
static void mask_span(rp_batch *batch, const rp_tokens *tokens, rp_rng *rng, int32_t first, int32_t end) {
    uint32_t fate = rp_rng_below(rng, 10);
    for (int32_t t = first; t < end; t++)
        if (!tokens->special[batch->ids[t]]) mask_token(batch, tokens, rng, fate, t, first - 1, end);
}

static int32_t first_of(const rp_batch *batch, int32_t s, int side) {
    return (side ? batch->tail_first : batch->head_first)[s];
}

static int32_t end_of(const rp_batch *batch, int32_t s, int side) {
    return (side ? batch->tail_end : batch->head_end)[s];
}

/* The row where word number `word` of rows first .. end begins; `end` when there are no more words. */
static int32_t row_of_word(const rp_batch *batch, const rp_tokens *tokens, int32_t first, int32_t end, int64_t word) {
    int32_t t = first;
    while (t < end && word > 0) {
        t++;
        word -= t < end && (tokens->continues == NULL || !tokens->continues[batch->ids[t]]);
    }
    return t;
}

static int64_t words_in(const rp_batch *batch, const rp_tokens *tokens, int32_t first, int32_t end) {
    int64_t words = 0;
    for (int32_t t = first; t < end; words++) t = row_of_word(batch, tokens, t, end, 1);
    return words;
}

/* A length of 1 .. longest, P(l) ~ (1 - p)^(l - 1). */
static int64_t draw_length(rp_rng *rng, double p, int64_t longest) {
    double total = 0, share = 1;
    for (int64_t l = 1; l <= longest; l++, share *= 1 - p) total += share;
    double at = rp_rng_unit(rng) * total;
    int64_t length = 1;
    for (share = 1; length < longest && at >= share; length++, share *= 1 - p) at -= share;
    return length;
}

/* One run of the words in rows first .. end. */
static void mask_relation_words(rp_batch *batch, const rp_tokens *tokens, rp_rng *rng, const rp_span_masking *o,
                                int32_t first, int32_t end) {
    int64_t words = words_in(batch, tokens, first, end);
    if (words == 0 || rp_rng_unit(rng) >= o->relation_probability) return;
    int64_t length = draw_length(rng, o->length_p, words < o->longest ? words : o->longest);
    int64_t start = rp_rng_below(rng, (uint32_t)(words - length + 1));
    first = row_of_word(batch, tokens, first, end, start);
    mask_span(batch, tokens, rng, first, row_of_word(batch, tokens, first, end, length));
}

/* What stands between the markers, once more in the prompt. */
static void repeat_mentions(rp_batch *batch, const rp_tokens *tokens, int32_t s) {
    int32_t row = batch->cu_seqlens[s + 1] - 1; /* the prompt's [SEP] */
    for (int32_t i = tokens->prompt_length - 1; i >= 0; i--) {
        int side = tokens->prompt[i] == RP_PROMPT_TAIL;
        int32_t first = first_of(batch, s, side), length = end_of(batch, s, side) - first;
        row -= tokens->prompt[i] < 0 ? length : 1;
        if (tokens->prompt[i] < 0) memcpy(batch->ids + row, batch->ids + first, (size_t)length * sizeof *batch->ids);
    }
}

/* Streams: row 0 is the head's, 1 the tail's, 2 that of the words between them. */
void rp_mask_spans(rp_batch *batch, const rp_tokens *tokens, int32_t s, const rp_span_masking *o, uint64_t key,
                   uint32_t step) {
    int sides[2] = {batch->tail[s] < batch->head[s], batch->head[s] < batch->tail[s]}; /* in the text's order */
    int32_t first = end_of(batch, s, sides[0]), end = sides[1] ? batch->tail[s] : batch->head[s];
    while (first < end && !batch->text[first]) first++; /* the marker behind the mention */
    for (int i = 0; i < 2; i++) {
        rp_rng rng = rp_rng_stream(key, step, (uint32_t)batch->sample[s], (uint32_t)sides[i]);
        if (rp_rng_unit(&rng) < o->mention_probability)
            mask_span(batch, tokens, &rng, first_of(batch, s, sides[i]), end_of(batch, s, sides[i]));
        rng = rp_rng_stream(key, step, (uint32_t)batch->sample[s], 2);
        if (i == 0) mask_relation_words(batch, tokens, &rng, o, first, end);
    }
    repeat_mentions(batch, tokens, s);
}
