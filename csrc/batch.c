#include "batch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "rng.h"

/* -- tokens ---------------------------------------------------------------------------------------------- */

rp_status rp_tokens_check(const rp_tokens *t) {
    const struct {
        const char *name;
        int32_t id;
    } named[] = {{"cls", t->cls},           {"sep", t->sep},
                 {"mask", t->mask},         {"head_start", t->head_start},
                 {"head_end", t->head_end}, {"tail_start", t->tail_start},
                 {"tail_end", t->tail_end}, {"blank", t->blank},
                 {"subject", t->subject},   {"object", t->object}};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        if (named[i].id < 0 || named[i].id >= t->vocab_size)
            return rp_fail(RP_STATUS_VALUE,
                           "tokens: %s is %" PRId32 "; expected 0 .. %" PRId32 ", an id of the vocabulary",
                           named[i].name, named[i].id, t->vocab_size - 1);
        if (!t->special[named[i].id])
            return rp_fail(RP_STATUS_VALUE, "tokens: special[%" PRId32 "] is 0, but %s has this id; set it to 1",
                           named[i].id, named[i].name);
    }
    return RP_OK;
}

/* -- memory ---------------------------------------------------------------------------------------------- */

static void take_arrays(rp_batch *batch, rp_arena *arena) {
    size_t S = (size_t)batch->S_capacity, T = (size_t)batch->T_capacity;
    batch->ids = rp_arena_take(arena, T, sizeof(int32_t));
    batch->pos = rp_arena_take(arena, T, sizeof(int32_t));
    batch->sequence = rp_arena_take(arena, T, sizeof(int32_t));
    batch->mlm_row = rp_arena_take(arena, T, sizeof(int32_t));
    batch->mlm_label = rp_arena_take(arena, T, sizeof(int32_t));
    batch->read = rp_arena_take(arena, T, sizeof(int32_t));
    batch->read_pos = rp_arena_take(arena, T, sizeof(int32_t));
    batch->read_sequence = rp_arena_take(arena, T, sizeof(int32_t));
    batch->cu_read = rp_arena_take(arena, S + 1, sizeof(int32_t));
    batch->cu_seqlens = rp_arena_take(arena, S + 1, sizeof(int32_t));
    batch->sample = rp_arena_take(arena, S, sizeof(int32_t));
    batch->head = rp_arena_take(arena, S, sizeof(int32_t));
    batch->tail = rp_arena_take(arena, S, sizeof(int32_t));
    batch->relation = rp_arena_take(arena, S, sizeof(int32_t));
}

/* Points every array into the batch's own memory (a slice's pointers lead elsewhere). */
static void bind_arrays(rp_batch *batch) {
    rp_arena arena = {.base = batch->memory, .capacity = SIZE_MAX};
    take_arrays(batch, &arena);
}

rp_status rp_batch_new(rp_batch **out, int64_t max_sequences, int64_t max_tokens) {
    *out = NULL;
    if (max_sequences < 1 || max_sequences >= INT32_MAX || max_tokens < 1 || max_tokens > INT32_MAX)
        return rp_fail(RP_STATUS_VALUE,
                       "a batch of %" PRId64 " sequences and %" PRId64 " tokens; expected 1 .. %d of each: "
                       "take fewer pairs a step or a smaller max_length",
                       max_sequences, max_tokens, INT32_MAX - 1);
    rp_batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a batch");
    batch->S_capacity = (int32_t)max_sequences;
    batch->T_capacity = (int32_t)max_tokens;
    rp_arena arena = {0};
    take_arrays(batch, &arena);
    rp_status status = rp_arena_check(&arena);
    if (status == RP_OK && (batch->memory = rp_aligned_alloc(arena.used)) == NULL)
        status = rp_fail(RP_STATUS_MEMORY,
                         "no memory for a batch of %" PRId64 " sequences and %" PRId64 " tokens (%zu bytes)",
                         max_sequences, max_tokens, arena.used);
    if (status != RP_OK) {
        rp_batch_free(batch);
        return status;
    }
    rp_batch_clear(batch);
    *out = batch;
    return RP_OK;
}

void rp_batch_free(rp_batch *batch) {
    if (batch == NULL) return;
    rp_aligned_free(batch->memory);
    free(batch);
}

void rp_batch_clear(rp_batch *batch) {
    bind_arrays(batch);
    batch->S = batch->T = batch->M = batch->max_len = 0;
    batch->truncated = batch->truncated_mentions = 0;
    batch->cu_seqlens[0] = 0;
}

/* -- one sample: layout, window, tokens ------------------------------------------------------------------ */

/* A sequence is five runs of word pieces with the six fixed tokens between them:
 *   [CLS] LEFT [mark] FIRST [/mark] MIDDLE [mark] SECOND [/mark] RIGHT [SEP]
 * where FIRST and SECOND are the mentions in the order they stand in. Of each run the first `keep_start` and the last
 * `keep_end` pieces are kept; keep_start + keep_end <= length. */
enum { LEFT, FIRST, MIDDLE, SECOND, RIGHT, RUNS };

typedef struct run {
    const int32_t *ids;
    int64_t length, keep_start, keep_end;
} run;

typedef struct layout {
    run runs[RUNS];
    bool tail_first; /* FIRST is the tail */
} layout;

static run run_of(const int32_t *ids, int64_t length) {
    return (run){.ids = ids, .length = length, .keep_start = length};
}

static bool is_blankable(rp_input input) { return input == RP_INPUT_CM || input == RP_INPUT_OM; }

static bool needs_types(rp_input input) { return input == RP_INPUT_CT || input == RP_INPUT_OT; }

/* What stands between the markers of the head (side 0) or the tail (side 1). */
static run mention_run(const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample, int side) {
    const rp_corpus_arrays *a = &corpus->a;
    const int32_t *role = side ? &tokens->object : &tokens->subject;
    if (sample->input == RP_INPUT_OC) return run_of(role, 1);
    if (needs_types(sample->input)) {
        int32_t type = side ? a->tail_type[sample->row] : a->head_type[sample->row];
        return run_of(a->type_ids + a->type_offsets[type], a->type_offsets[type + 1] - a->type_offsets[type]);
    }
    if (is_blankable(sample->input) && (side ? sample->blank_tail : sample->blank_head))
        return run_of(sample->role_blanks ? role : &tokens->blank, 1);
    const int32_t *span = a->spans + 4 * sample->row + 2 * side;
    return run_of(a->ids + a->offsets[sample->row] + span[0], span[1] - span[0]);
}

static layout layout_of(const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample) {
    const int32_t *text = corpus->a.ids + corpus->a.offsets[sample->row], *span = corpus->a.spans + 4 * sample->row;
    bool context = sample->input == RP_INPUT_CM || sample->input == RP_INPUT_CT || sample->input == RP_INPUT_OC;
    layout l = {.tail_first = context && span[2] < span[0]};
    l.runs[l.tail_first ? SECOND : FIRST] = mention_run(corpus, tokens, sample, 0);
    l.runs[l.tail_first ? FIRST : SECOND] = mention_run(corpus, tokens, sample, 1);
    if (context) {
        const int32_t *first = span + (l.tail_first ? 2 : 0), *second = span + (l.tail_first ? 0 : 2);
        int64_t length = corpus->a.offsets[sample->row + 1] - corpus->a.offsets[sample->row];
        l.runs[LEFT] = run_of(text, first[0]);
        l.runs[MIDDLE] = run_of(text + first[1], second[0] - first[1]);
        l.runs[RIGHT] = run_of(text + second[1], length - second[1]);
    }
    return l;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Shares `room` among two wants, evenly (the odd one to the first), and what one does not need to the other:
 * *a + *b = min(room, want_a + want_b), *a <= want_a, *b <= want_b. */
static void share(int64_t room, int64_t want_a, int64_t want_b, int64_t *a, int64_t *b) {
    *a = smaller(want_a, larger(room - room / 2, room - want_b));
    *b = smaller(want_b, room - *a);
}

/* Cuts the runs so that RP_BATCH_FIXED + their kept pieces <= max_length. The room goes to the mentions first, then to
 * the middle, and what is left to the outer ends; so each is cut only when all that come after it are gone:
 *   mentions  m = min(room, |FIRST| + |SECOND|)   middle  c = min(room - m, |MIDDLE|)   ends  room - m - c
 * As max_length >= 16, `room` is at least 10 and each mention keeps at least one piece (share gives each >= 1 from
 * two). Returns 0 when nothing was cut, 1 when context was, 2 when a mention was. */
static int fit_window(layout *l, int64_t max_length) {
    int64_t room = max_length - RP_BATCH_FIXED, total = 0;
    run *r = l->runs;
    for (int i = 0; i < RUNS; i++) total += r[i].length;
    if (total <= room) return 0;
    share(room, r[FIRST].length, r[SECOND].length, &r[FIRST].keep_start, &r[SECOND].keep_start);
    room -= r[FIRST].keep_start + r[SECOND].keep_start;
    int64_t middle = smaller(room, r[MIDDLE].length);
    if (middle < r[MIDDLE].length) {
        r[MIDDLE].keep_start = middle - middle / 2;
        r[MIDDLE].keep_end = middle / 2;
    }
    room -= middle;
    r[LEFT].keep_start = 0; /* the pieces nearest to the mention are its last */
    share(room, r[LEFT].length, r[RIGHT].length, &r[LEFT].keep_end, &r[RIGHT].keep_start);
    return r[FIRST].keep_start < r[FIRST].length || r[SECOND].keep_start < r[SECOND].length ? 2 : 1;
}

static void put_token(rp_batch *batch, int32_t id) {
    int32_t t = batch->T++;
    batch->ids[t] = id;
    batch->pos[t] = t - batch->cu_seqlens[batch->S];
    batch->sequence[t] = batch->S;
}

static void put_run(rp_batch *batch, const run *r) {
    for (int64_t i = 0; i < r->keep_start; i++) put_token(batch, r->ids[i]);
    for (int64_t i = r->length - r->keep_end; i < r->length; i++) put_token(batch, r->ids[i]);
}

static void put_mention(rp_batch *batch, const rp_tokens *tokens, const run *r, bool is_tail) {
    (is_tail ? batch->tail : batch->head)[batch->S] = batch->T;
    put_token(batch, is_tail ? tokens->tail_start : tokens->head_start);
    put_run(batch, r);
    put_token(batch, is_tail ? tokens->tail_end : tokens->head_end);
}

static rp_status check_sample(const rp_batch *batch, const rp_corpus *corpus, const rp_sample *sample,
                              int64_t max_length) {
    if (max_length < RP_BATCH_MIN_LENGTH || max_length > RP_BATCH_MAX_LENGTH)
        return rp_fail(RP_STATUS_VALUE, "max_length is %" PRId64 "; expected %d .. %d", max_length, RP_BATCH_MIN_LENGTH,
                       RP_BATCH_MAX_LENGTH);
    if ((int)sample->input < RP_INPUT_CM || (int)sample->input > RP_INPUT_OT)
        return rp_fail(RP_STATUS_VALUE, "input is %d; expected 0 .. 4 (C+M, C+T, OnlyC, OnlyM, OnlyT)",
                       (int)sample->input);
    if (sample->row < 0 || sample->row >= corpus->a.n)
        return rp_fail(RP_STATUS_VALUE, "row %" PRId64 " is not in the corpus; expected 0 .. %" PRId64, sample->row,
                       corpus->a.n - 1);
    if (needs_types(sample->input) && (corpus->a.head_type[sample->row] < 0 || corpus->a.tail_type[sample->row] < 0))
        return rp_fail(RP_STATUS_VALUE,
                       "row %" PRId64 ": %s is -1 (unknown), and the inputs C+T and OnlyT need it; give the "
                       "entity a type, or use other inputs",
                       sample->row, corpus->a.head_type[sample->row] < 0 ? "head_type" : "tail_type");
    if (batch->S >= batch->S_capacity)
        return rp_fail(RP_STATUS_VALUE, "row %" PRId64 ": the batch is full: it holds %" PRId32 " sequences",
                       sample->row, batch->S_capacity);
    return RP_OK;
}

static int64_t kept_tokens(const layout *l) {
    int64_t kept = RP_BATCH_FIXED;
    for (int i = 0; i < RUNS; i++) kept += l->runs[i].keep_start + l->runs[i].keep_end;
    return kept;
}

rp_status rp_batch_add(rp_batch *batch, const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample,
                       int64_t max_length, int32_t number) {
    RP_TRY(check_sample(batch, corpus, sample, max_length));
    layout l = layout_of(corpus, tokens, sample);
    int cut = fit_window(&l, max_length);
    int64_t kept = kept_tokens(&l);
    if (kept > batch->T_capacity - batch->T)
        return rp_fail(RP_STATUS_VALUE,
                       "row %" PRId64 ": its %" PRId64 " tokens do not fit the batch: %" PRId32 " of %" PRId32
                       " are taken",
                       sample->row, kept, batch->T, batch->T_capacity);
    put_token(batch, tokens->cls);
    put_run(batch, &l.runs[LEFT]);
    put_mention(batch, tokens, &l.runs[FIRST], l.tail_first);
    put_run(batch, &l.runs[MIDDLE]);
    put_mention(batch, tokens, &l.runs[SECOND], !l.tail_first);
    put_run(batch, &l.runs[RIGHT]);
    put_token(batch, tokens->sep);
    batch->sample[batch->S] = number;
    batch->relation[batch->S] = corpus->a.relation[sample->row];
    batch->cu_seqlens[++batch->S] = batch->T;
    if (kept > batch->max_len) batch->max_len = (int32_t)kept;
    batch->truncated += cut > 0;
    batch->truncated_mentions += cut > 1;
    return RP_OK;
}

/* -- masked words ---------------------------------------------------------------------------------------- */

/* A random id that is not special; `old` when 64 draws met none (nearly all of the vocabulary is special). */
static int32_t random_word(rp_rng *rng, const rp_tokens *tokens, int32_t old) {
    for (int i = 0; i < 64; i++) {
        int32_t id = (int32_t)rp_rng_below(rng, (uint32_t)tokens->vocab_size);
        if (!tokens->special[id]) return id;
    }
    return old;
}

/* Every token has a stream of its own, row = its place in the sequence, so that its fate is a function of (key, step,
 * sample number, place): first the choice, then which of the three, then the word (Devlin et al. 2019, section 3.1). */
void rp_batch_mask(rp_batch *batch, const rp_tokens *tokens, int32_t s, double probability, uint64_t key,
                   uint32_t step) {
    for (int32_t t = batch->cu_seqlens[s]; t < batch->cu_seqlens[s + 1]; t++) {
        int32_t id = batch->ids[t];
        if (tokens->special[id]) continue;
        rp_rng rng = rp_rng_stream(key, step, (uint32_t)batch->sample[s], (uint32_t)batch->pos[t]);
        if (rp_rng_unit(&rng) >= probability) continue;
        uint32_t fate = rp_rng_below(&rng, 10);
        if (fate < 8)
            batch->ids[t] = tokens->mask;
        else if (fate == 8)
            batch->ids[t] = random_word(&rng, tokens, id);
        batch->mlm_row[batch->M] = t;
        batch->mlm_label[batch->M++] = id;
    }
}

/* -- slices ---------------------------------------------------------------------------------------------- */

/* The first masked token at row t or after it. */
static int32_t first_mask(const rp_batch *batch, int32_t t) {
    int32_t low = 0, high = batch->M;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (batch->mlm_row[middle] < t)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

rp_status rp_batch_slice(rp_batch *slice, const rp_batch *batch, int32_t first, int32_t last) {
    if (first < 0 || first >= last || last > batch->S)
        return rp_fail(RP_STATUS_VALUE, "slice [%" PRId32 ", %" PRId32 ") of a batch of %" PRId32 " sequences", first,
                       last, batch->S);
    int32_t t0 = batch->cu_seqlens[first], t1 = batch->cu_seqlens[last];
    if (last - first > slice->S_capacity || t1 - t0 > slice->T_capacity)
        return rp_fail(RP_STATUS_VALUE,
                       "slice [%" PRId32 ", %" PRId32 ") has %" PRId32 " sequences and %" PRId32
                       " tokens; its memory holds %" PRId32 " and %" PRId32,
                       first, last, last - first, t1 - t0, slice->S_capacity, slice->T_capacity);
    rp_batch_clear(slice);
    slice->S = last - first;
    slice->T = t1 - t0;
    slice->ids = batch->ids + t0;
    slice->pos = batch->pos + t0;
    slice->sample = batch->sample + first;
    slice->relation = batch->relation + first;
    for (int32_t t = 0; t < slice->T; t++) slice->sequence[t] = batch->sequence[t0 + t] - first;
    for (int32_t s = 0; s < slice->S; s++) {
        int32_t end = batch->cu_seqlens[first + s + 1] - t0;
        if (end - slice->cu_seqlens[s] > slice->max_len) slice->max_len = end - slice->cu_seqlens[s];
        slice->cu_seqlens[s + 1] = end;
        slice->head[s] = batch->head[first + s] - t0;
        slice->tail[s] = batch->tail[first + s] - t0;
    }
    int32_t m0 = first_mask(batch, t0);
    slice->M = first_mask(batch, t1) - m0;
    slice->mlm_label = batch->mlm_label + m0;
    for (int32_t m = 0; m < slice->M; m++) slice->mlm_row[m] = batch->mlm_row[m0 + m] - t0;
    return RP_OK;
}

/* -- rows that are read ---------------------------------------------------------------------------------- */

void rp_batch_read(rp_batch *batch, const rp_reads *reads) {
    int32_t masked = 0;
    batch->R = 0;
    for (int32_t t = 0; t < batch->T; t++) {
        int32_t s = batch->sequence[t];
        bool wanted = reads->all || (reads->first && t == batch->cu_seqlens[s]);
        wanted = wanted || (reads->markers && (t == batch->head[s] || t == batch->tail[s]));
        while (masked < batch->M && batch->mlm_row[masked] < t) masked++;
        wanted = wanted || (reads->masked && masked < batch->M && batch->mlm_row[masked] == t);
        if (!wanted) continue;
        batch->read[batch->R] = t;
        batch->read_pos[batch->R] = batch->pos[t];
        batch->read_sequence[batch->R] = s;
        batch->R++;
    }
    for (int32_t s = 0, r = 0; s <= batch->S; s++) {
        while (r < batch->R && batch->read_sequence[r] < s) r++;
        batch->cu_read[s] = r;
    }
}
