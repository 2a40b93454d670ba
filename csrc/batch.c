#include "batch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"

/* -- tokens ---------------------------------------------------------------------------------------------- */

static rp_status check_id(const rp_tokens *t, int32_t id, const char *name) {
    if (id >= 0 && id < t->vocab_size) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "tokens: %s is %" PRId32 "; expected 0 .. %" PRId32 ", an id of the vocabulary",
                   name, id, t->vocab_size - 1);
}

static rp_status check_prompt(const rp_tokens *t) {
    int32_t masks = 0;
    for (int32_t i = 0; i < t->prompt_length; i++) {
        if (t->prompt[i] == RP_PROMPT_HEAD || t->prompt[i] == RP_PROMPT_TAIL) continue;
        RP_TRY(check_id(t, t->prompt[i], "a piece of the prompt"));
        masks += t->prompt[i] == t->mask;
    }
    if (masks == 1 || t->prompt_length == 0) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "tokens: the prompt has %" PRId32 " [MASK]; expected one", masks);
}

static rp_status check_markers(const rp_tokens *t) {
    for (int32_t m = 0; m < 4 * t->n_types; m++) {
        int32_t start = t->marker_offsets[m], end = t->marker_offsets[m + 1];
        if (start >= end || (m == 0 && start != 0))
            return rp_fail(RP_STATUS_VALUE,
                           "tokens: marker %" PRId32 " of type %" PRId32 " is marker_ids[%" PRId32 " .. %" PRId32
                           "); expected a piece or more",
                           m % 4, m / 4, start, end);
    }
    int32_t pieces = t->n_types > 0 ? t->marker_offsets[4 * t->n_types] : 0;
    for (int32_t i = 0; i < pieces; i++) RP_TRY(check_id(t, t->marker_ids[i], "a piece of a typed marker"));
    return RP_OK;
}

rp_status rp_tokens_check(const rp_tokens *t) {
    const struct {
        const char *name;
        int32_t id;
        bool fixed;
    } named[] = {{"cls", t->cls, true},           {"sep", t->sep, true},
                 {"mask", t->mask, false},        {"head_start", t->head_start, true},
                 {"head_end", t->head_end, true}, {"tail_start", t->tail_start, true},
                 {"tail_end", t->tail_end, true}, {"blank", t->blank, false},
                 {"subject", t->subject, false},  {"object", t->object, false}};
    if (t->bare && (t->prompt_length > 0 || t->n_types > 0))
        return rp_fail(RP_STATUS_VALUE, "tokens: bare sequences with %s; expected words alone",
                       t->prompt_length > 0 ? "a prompt" : "typed markers");
    if (t->bare && t->n_entities > 0)
        return rp_fail(RP_STATUS_VALUE, "tokens: bare sequences have no markers to inject a graph at");
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        if (t->bare && named[i].fixed) continue;
        RP_TRY(check_id(t, named[i].id, named[i].name));
        if (!t->special[named[i].id])
            return rp_fail(RP_STATUS_VALUE, "tokens: special[%" PRId32 "] is 0, but %s has this id; set it to 1",
                           named[i].id, named[i].name);
    }
    RP_TRY(check_prompt(t));
    return check_markers(t);
}

/* -- memory ---------------------------------------------------------------------------------------------- */

static void take_arrays(rp_batch *batch, rp_arena *arena) {
    size_t S = (size_t)batch->S_capacity, T = (size_t)batch->T_capacity;
    batch->ids = rp_arena_take(arena, T, sizeof(int32_t));
    batch->pos = rp_arena_take(arena, T, sizeof(int32_t));
    batch->sequence = rp_arena_take(arena, T, sizeof(int32_t));
    batch->mlm_row = rp_arena_take(arena, T, sizeof(int32_t));
    batch->mlm_label = rp_arena_take(arena, T, sizeof(int32_t));
    batch->span_left = rp_arena_take(arena, T, sizeof(int32_t));
    batch->span_right = rp_arena_take(arena, T, sizeof(int32_t));
    batch->span_place = rp_arena_take(arena, T, sizeof(int32_t));
    batch->read = rp_arena_take(arena, T, sizeof(int32_t));
    batch->read_pos = rp_arena_take(arena, T, sizeof(int32_t));
    batch->read_sequence = rp_arena_take(arena, T, sizeof(int32_t));
    batch->cu_read = rp_arena_take(arena, S + 1, sizeof(int32_t));
    batch->cu_seqlens = rp_arena_take(arena, S + 1, sizeof(int32_t));
    batch->sample = rp_arena_take(arena, S, sizeof(int32_t));
    batch->head = rp_arena_take(arena, S, sizeof(int32_t));
    batch->tail = rp_arena_take(arena, S, sizeof(int32_t));
    batch->relation = rp_arena_take(arena, S, sizeof(int32_t));
    batch->prompt_row = rp_arena_take(arena, S, sizeof(int32_t));
    batch->text = rp_arena_take(arena, T, sizeof(uint8_t));
    batch->pair = rp_arena_take(arena, S, sizeof(int32_t));
    batch->head_first = rp_arena_take(arena, S, sizeof(int32_t));
    batch->tail_first = rp_arena_take(arena, S, sizeof(int32_t));
    batch->head_end = rp_arena_take(arena, S, sizeof(int32_t));
    batch->tail_end = rp_arena_take(arena, S, sizeof(int32_t));
    batch->row = rp_arena_take(arena, S, sizeof(int64_t));
    batch->cu_pieces = rp_arena_take(arena, 3 * S + 1, sizeof(int32_t));
    for (int k = 0; k < RP_TAGS; k++) batch->tags[k] = rp_arena_take(arena, T, sizeof(int32_t));
    for (int k = 0; k < 2; k++) batch->distance[k] = rp_arena_take(arena, T, sizeof(int32_t));
    for (int k = 0; k < 2; k++) batch->entity[k] = rp_arena_take(arena, S, sizeof(int32_t));
    batch->inject_at = rp_arena_take(arena, 2 * S, sizeof(int32_t));
    batch->inject_row = rp_arena_take(arena, 2 * S, sizeof(int32_t));
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
    batch->S = batch->T = batch->M = batch->K = batch->max_len = 0;
    batch->truncated = batch->truncated_mentions = 0;
    batch->origin = (rp_origin){0};
    batch->cu_seqlens[0] = 0;
}

/* -- one sample: layout, window, tokens ------------------------------------------------------------------ */

/* A sequence is five runs of word pieces with fixed tokens between and behind them:
 *   [CLS] LEFT [mark] FIRST [/mark] MIDDLE [mark] SECOND [/mark] RIGHT [SEP] (prompt [SEP])
 * where FIRST and SECOND are the mentions in the order they stand in. Of each run the first `keep_start` and the last
 * `keep_end` pieces are kept; keep_start + keep_end <= length. */
enum { LEFT, FIRST, MIDDLE, SECOND, RIGHT, RUNS };

typedef struct run {
    const int32_t *ids, *tags[RP_TAGS]; /* tags NULL: none */
    int64_t length, keep_start, keep_end;
} run;

/* The sides are 0 for the head, 1 for the tail. */
typedef struct layout {
    run runs[RUNS];
    int place[2];               /* of either side: FIRST or SECOND */
    run opening[2], closing[2]; /* markers of either side */
    int64_t times[2]; /* how often each piece of a side's mention stands there: once, and wherever the prompt has it */
    int64_t fixed;    /* tokens beside the runs */
} layout;

static run run_of(const int32_t *ids, int64_t length) {
    return (run){.ids = ids, .length = length, .keep_start = length};
}

/* Words start .. end of a sentence. */
static run text_run(const rp_corpus *corpus, int64_t row, int64_t start, int64_t end) {
    int64_t at = corpus->a.offsets[row] + start;
    run r = run_of(corpus->a.ids + at, end - start);
    for (int k = 0; k < RP_TAGS; k++) r.tags[k] = corpus->a.tags[k] == NULL ? NULL : corpus->a.tags[k] + at;
    return r;
}

static bool gives_mentions(rp_input input) { return input == RP_INPUT_CM || input == RP_INPUT_OM; }

static bool gives_types(rp_input input) { return input == RP_INPUT_CT || input == RP_INPUT_OT; }

static bool gives_context(rp_input input) { return input != RP_INPUT_OM && input != RP_INPUT_OT; }

static bool has_typed_markers(const rp_tokens *tokens, rp_input input) {
    return tokens->n_types > 0 && gives_mentions(input);
}

static int32_t type_of(const rp_corpus *corpus, int64_t row, int side) {
    return side ? corpus->a.tail_type[row] : corpus->a.head_type[row];
}

static bool is_tail_first(const rp_corpus *corpus, int64_t row) {
    return corpus->a.spans[4 * row + 2] < corpus->a.spans[4 * row];
}

/* As what a side is marked: 0 as head, 1 as tail. */
static int role_of(const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample, int side) {
    return side ^ (tokens->text_order && is_tail_first(corpus, sample->row));
}

/* What stands between the markers of a side. */
static run mention_run(const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample, int side) {
    const rp_corpus_arrays *a = &corpus->a;
    const int32_t *role = role_of(corpus, tokens, sample, side) ? &tokens->object : &tokens->subject;
    if (sample->input == RP_INPUT_OC) return run_of(role, 1);
    if (gives_types(sample->input)) {
        int32_t type = type_of(corpus, sample->row, side);
        return run_of(a->type_ids + a->type_offsets[type], a->type_offsets[type + 1] - a->type_offsets[type]);
    }
    if (side ? sample->blank_tail : sample->blank_head) return run_of(sample->role_blanks ? role : &tokens->blank, 1);
    const int32_t *span = a->spans + 4 * sample->row + 2 * side;
    return text_run(corpus, sample->row, span[0], span[1]);
}

/* The marker before (end 0) or behind (end 1) the mention of a side; without pieces where sequences are bare. */
static run marker_run(const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample, int side, int end) {
    const int32_t *plain[] = {&tokens->head_start, &tokens->head_end, &tokens->tail_start, &tokens->tail_end};
    int marker = 2 * role_of(corpus, tokens, sample, side) + end;
    if (tokens->bare) return run_of(NULL, 0);
    if (!has_typed_markers(tokens, sample->input)) return run_of(plain[marker], 1);
    const int32_t *bounds = tokens->marker_offsets + 4 * type_of(corpus, sample->row, side) + marker;
    return run_of(tokens->marker_ids + bounds[0], bounds[1] - bounds[0]);
}

static layout layout_of(const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample) {
    const int32_t *span = corpus->a.spans + 4 * sample->row;
    bool context = gives_context(sample->input);
    bool tail_first = (context || tokens->text_order) && is_tail_first(corpus, sample->row);
    layout l = {.place = {tail_first ? SECOND : FIRST, tail_first ? FIRST : SECOND},
                .times = {1, 1},
                .fixed = tokens->bare ? 0 : 2};
    for (int side = 0; side < 2; side++) {
        l.runs[l.place[side]] = mention_run(corpus, tokens, sample, side);
        l.opening[side] = marker_run(corpus, tokens, sample, side, 0);
        l.closing[side] = marker_run(corpus, tokens, sample, side, 1);
        l.fixed += l.opening[side].length + l.closing[side].length;
    }
    if (context) {
        const int32_t *first = span + (tail_first ? 2 : 0), *second = span + (tail_first ? 0 : 2);
        int64_t length = corpus->a.offsets[sample->row + 1] - corpus->a.offsets[sample->row];
        l.runs[LEFT] = text_run(corpus, sample->row, 0, first[0]);
        l.runs[MIDDLE] = text_run(corpus, sample->row, first[1], second[0]);
        l.runs[RIGHT] = text_run(corpus, sample->row, second[1], length);
    }
    for (int32_t i = 0; i < tokens->prompt_length; i++) {
        if (tokens->prompt[i] < 0)
            l.times[tokens->prompt[i] == RP_PROMPT_TAIL]++;
        else
            l.fixed++;
    }
    l.fixed += tokens->prompt_length > 0; /* its [SEP] */
    return l;
}

int64_t rp_batch_longest(const rp_corpus *corpus, const rp_tokens *tokens) {
    int64_t mention = corpus->longest > corpus->longest_type ? corpus->longest : corpus->longest_type;
    int64_t longest = corpus->longest + 2 * corpus->longest_type + RP_BATCH_FIXED, marker = 0;
    for (int32_t m = 0; m < 4 * tokens->n_types; m++) {
        int32_t length = tokens->marker_offsets[m + 1] - tokens->marker_offsets[m];
        if (length > marker) marker = length;
    }
    for (int32_t i = 0; i < tokens->prompt_length; i++) longest += tokens->prompt[i] < 0 ? mention : 1;
    return longest + 4 * marker + (tokens->prompt_length > 0);
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Shares `room` among two wants, evenly (the odd one to the first), and what one does not need to the other:
 * *a + *b = min(room, want_a + want_b), *a <= want_a, *b <= want_b. */
static void share(int64_t room, int64_t want_a, int64_t want_b, int64_t *a, int64_t *b) {
    *a = smaller(want_a, larger(room - room / 2, room - want_b));
    *b = smaller(want_b, room - *a);
}

/* The shortest max_length in which the sample's fixed tokens leave ten word pieces, or one of each mention wherever it
 * is named. */
static int64_t shortest(const layout *l) {
    return l->fixed + larger(RP_BATCH_MIN_LENGTH - RP_BATCH_FIXED, l->times[0] + l->times[1]);
}

/* Cuts mentions that are longer than `room`, the longer one first (of equal ones the second), and returns what they
 * leave of it. Each keeps at least one piece (shortest). */
static int64_t fit_mentions(layout *l, int64_t room) {
    int64_t *first = &l->runs[FIRST].keep_start, *second = &l->runs[SECOND].keep_start;
    int64_t times[2] = {l->times[l->place[0] == SECOND], l->times[l->place[0] == FIRST]};
    while (times[0] * *first + times[1] * *second > room) --*(*first > *second ? first : second);
    return room - times[0] * *first - times[1] * *second;
}

static int64_t kept_tokens(const layout *l) {
    int64_t kept = l->fixed;
    for (int i = 0; i < RUNS; i++) kept += l->runs[i].keep_start + l->runs[i].keep_end;
    for (int side = 0; side < 2; side++) kept += (l->times[side] - 1) * l->runs[l->place[side]].keep_start;
    return kept;
}

/* Cuts the runs so that the sequence has at most max_length tokens. The room goes to the mentions first, then to the
 * middle, and what is left to the outer ends; so each is cut only when all that come after it are gone. Returns 0 when
 * nothing was cut, 1 when context was, 2 when a mention was. */
static int fit_window(layout *l, int64_t max_length) {
    run *r = l->runs;
    if (kept_tokens(l) <= max_length) return 0;
    int64_t room = fit_mentions(l, max_length - l->fixed);
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

static void put_token(rp_batch *batch, int32_t id, bool text) {
    int32_t t = batch->T++;
    batch->ids[t] = id;
    batch->text[t] = text;
    batch->pos[t] = t - batch->cu_seqlens[batch->S];
    batch->sequence[t] = batch->S;
    for (int k = 0; k < RP_TAGS; k++) batch->tags[k][t] = 0;
}

static void put_words(rp_batch *batch, const run *r, int64_t first, int64_t last, bool text) {
    for (int64_t i = first; i < last; i++) {
        put_token(batch, r->ids[i], text);
        for (int k = 0; k < RP_TAGS; k++)
            if (r->tags[k] != NULL) batch->tags[k][batch->T - 1] = r->tags[k][i];
    }
}

static void put_run(rp_batch *batch, const run *r, bool text) {
    put_words(batch, r, 0, r->keep_start, text);
    put_words(batch, r, r->length - r->keep_end, r->length, text);
}

static void put_mention(rp_batch *batch, const layout *l, int place) {
    int side = l->place[1] == place;
    (side ? batch->tail : batch->head)[batch->S] = batch->T;
    put_run(batch, &l->opening[side], false);
    (side ? batch->tail_first : batch->head_first)[batch->S] = batch->T;
    put_run(batch, &l->runs[place], true);
    (side ? batch->tail_end : batch->head_end)[batch->S] = batch->T;
    put_run(batch, &l->closing[side], false);
}

static void put_prompt(rp_batch *batch, const rp_tokens *tokens, const layout *l) {
    batch->prompt_row[batch->S] = -1;
    if (tokens->prompt_length == 0) return;
    for (int32_t i = 0; i < tokens->prompt_length; i++) {
        int32_t id = tokens->prompt[i];
        if (id == tokens->mask) batch->prompt_row[batch->S] = batch->T;
        if (id < 0)
            put_run(batch, &l->runs[l->place[id == RP_PROMPT_TAIL]], false);
        else
            put_token(batch, id, false);
    }
    put_token(batch, tokens->sep, false);
}

/* The row of a side's entity in the graph's table; -1 where there is none, or its mention is not given. */
static int32_t graph_row(const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample, int side) {
    int32_t entity = (side ? corpus->a.tail_id : corpus->a.head_id)[sample->row];
    bool given = gives_mentions(sample->input) && !(side ? sample->blank_tail : sample->blank_head);
    if (sample->without_graph || !given || entity < 0 || entity >= tokens->n_entities) return -1;
    return tokens->graph_row[entity];
}

static rp_status check_types(const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample) {
    bool typed = has_typed_markers(tokens, sample->input);
    for (int side = 0; side < 2 && (typed || gives_types(sample->input)); side++) {
        int32_t type = type_of(corpus, sample->row, side);
        if (type < 0)
            return rp_fail(RP_STATUS_VALUE,
                           "row %" PRId64 ": %s is -1 (unknown), and %s need it; give the entity a type, or use other "
                           "%s",
                           sample->row, side ? "tail_type" : "head_type",
                           typed ? "typed markers" : "the inputs C+T and OnlyT", typed ? "markers" : "inputs");
        if (typed && type >= tokens->n_types)
            return rp_fail(RP_STATUS_VALUE,
                           "row %" PRId64 ": %s is %" PRId32 ", and there are typed markers of %" PRId32 " types",
                           sample->row, side ? "tail_type" : "head_type", type, tokens->n_types);
    }
    return RP_OK;
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
    if (batch->S >= batch->S_capacity)
        return rp_fail(RP_STATUS_VALUE, "row %" PRId64 ": the batch is full: it holds %" PRId32 " sequences",
                       sample->row, batch->S_capacity);
    return RP_OK;
}

static rp_status check_room(const layout *l, int64_t max_length) {
    if (max_length >= shortest(l)) return RP_OK;
    return rp_fail(RP_STATUS_VALUE,
                   "max_length is %" PRId64 ", of which the markers and the prompt take %" PRId64
                   " beside the mentions; "
                   "expected at least %" PRId64 ": raise max_length, or give a shorter prompt",
                   max_length, l->fixed, shortest(l));
}

rp_origin rp_origin_of(const rp_corpus *corpus, const rp_tokens *tokens) {
    rp_origin of = {.vocab_size = corpus->a.vocab_size, .bare = tokens->bare};
    if (tokens->vocab_size > of.vocab_size) of.vocab_size = tokens->vocab_size;
    for (int k = 0; k < RP_TAGS; k++) of.n_tags[k] = corpus->a.tags[k] == NULL ? 0 : corpus->a.n_tags[k];
    return of;
}

/* A batch may be of two corpora, of one kind of sequences. */
static void note_origin(rp_batch *batch, rp_origin of) {
    rp_origin *all = &batch->origin;
    if (of.vocab_size > all->vocab_size) all->vocab_size = of.vocab_size;
    for (int k = 0; k < RP_TAGS; k++)
        if (of.n_tags[k] > all->n_tags[k]) all->n_tags[k] = of.n_tags[k];
    all->bare = of.bare;
}

rp_status rp_batch_add(rp_batch *batch, const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample,
                       int64_t max_length, int32_t number) {
    RP_TRY(check_sample(batch, corpus, sample, max_length));
    RP_TRY(check_types(corpus, tokens, sample));
    layout l = layout_of(corpus, tokens, sample);
    RP_TRY(check_room(&l, max_length));
    int cut = fit_window(&l, max_length);
    int64_t kept = kept_tokens(&l);
    if (kept > batch->T_capacity - batch->T)
        return rp_fail(RP_STATUS_VALUE,
                       "row %" PRId64 ": its %" PRId64 " tokens do not fit the batch: %" PRId32 " of %" PRId32
                       " are taken",
                       sample->row, kept, batch->T, batch->T_capacity);
    note_origin(batch, rp_origin_of(corpus, tokens));
    if (!tokens->bare) put_token(batch, tokens->cls, false);
    put_run(batch, &l.runs[LEFT], true);
    put_mention(batch, &l, FIRST);
    put_run(batch, &l.runs[MIDDLE], true);
    put_mention(batch, &l, SECOND);
    put_run(batch, &l.runs[RIGHT], true);
    if (!tokens->bare) put_token(batch, tokens->sep, false);
    put_prompt(batch, tokens, &l);
    batch->sample[batch->S] = number;
    batch->relation[batch->S] = corpus->a.relation[sample->row];
    batch->pair[batch->S] = -1;
    batch->row[batch->S] = sample->row;
    for (int side = 0; side < 2; side++) batch->entity[side][batch->S] = graph_row(corpus, tokens, sample, side);
    batch->cu_seqlens[++batch->S] = batch->T;
    if (kept > batch->max_len) batch->max_len = (int32_t)kept;
    batch->truncated += cut > 0;
    batch->truncated_mentions += cut > 1;
    return RP_OK;
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
    slice->text = batch->text + t0;
    slice->pos = batch->pos + t0;
    slice->sample = batch->sample + first;
    slice->relation = batch->relation + first;
    slice->pair = batch->pair + first;
    slice->row = batch->row + first;
    for (int k = 0; k < RP_TAGS; k++) slice->tags[k] = batch->tags[k] + t0;
    for (int k = 0; k < 2; k++) slice->entity[k] = batch->entity[k] + first;
    for (int32_t t = 0; t < slice->T; t++) slice->sequence[t] = batch->sequence[t0 + t] - first;
    for (int32_t s = 0; s < slice->S; s++) {
        int32_t end = batch->cu_seqlens[first + s + 1] - t0;
        if (end - slice->cu_seqlens[s] > slice->max_len) slice->max_len = end - slice->cu_seqlens[s];
        slice->cu_seqlens[s + 1] = end;
        slice->head[s] = batch->head[first + s] - t0;
        slice->tail[s] = batch->tail[first + s] - t0;
        slice->head_first[s] = batch->head_first[first + s] - t0;
        slice->tail_first[s] = batch->tail_first[first + s] - t0;
        slice->head_end[s] = batch->head_end[first + s] - t0;
        slice->tail_end[s] = batch->tail_end[first + s] - t0;
        int32_t prompt = batch->prompt_row[first + s];
        slice->prompt_row[s] = prompt < 0 ? -1 : prompt - t0;
    }
    int32_t m0 = first_mask(batch, t0);
    slice->M = first_mask(batch, t1) - m0;
    slice->mlm_label = batch->mlm_label + m0;
    slice->span_place = batch->span_place + m0;
    for (int32_t m = 0; m < slice->M; m++) {
        slice->mlm_row[m] = batch->mlm_row[m0 + m] - t0;
        slice->span_left[m] = batch->span_left[m0 + m] - t0;
        slice->span_right[m] = batch->span_right[m0 + m] - t0;
    }
    return RP_OK;
}

/* -- rows that are read ---------------------------------------------------------------------------------- */

static bool is_in_mention(const rp_batch *batch, int32_t t, int32_t s) {
    return (t >= batch->head_first[s] && t < batch->head_end[s]) ||
           (t >= batch->tail_first[s] && t < batch->tail_end[s]);
}

/* Whether row t is among the `count` ascending `rows`; *at goes along with t. */
static bool is_next(const int32_t *rows, int32_t count, int32_t *at, int32_t t) {
    while (*at < count && rows[*at] < t) ++*at;
    return *at < count && rows[*at] == t;
}

void rp_batch_read(rp_batch *batch, const rp_reads *reads) {
    int32_t masked = 0, left = 0, right = 0, M = batch->M;
    batch->R = 0;
    for (int32_t t = 0; t < batch->T; t++) {
        int32_t s = batch->sequence[t];
        bool wanted = reads->all || (reads->first && t == batch->cu_seqlens[s]);
        wanted = wanted || (reads->markers && (t == batch->head[s] || t == batch->tail[s]));
        wanted = wanted || (reads->mentions && is_in_mention(batch, t, s));
        wanted = wanted || (reads->prompt && t == batch->prompt_row[s]);
        wanted = wanted || (reads->masked && is_next(batch->mlm_row, M, &masked, t));
        wanted = wanted || (reads->outside && is_next(batch->span_left, M, &left, t));
        wanted = wanted || (reads->outside && is_next(batch->span_right, M, &right, t));
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

/* -- mentions of a graph's entities ------------------------------------------------------------------------ */

void rp_batch_inject(rp_batch *b) {
    b->K = 0;
    for (int32_t s = 0; s < b->S; s++)
        for (int side = 0; side < 2; side++) {
            if (b->entity[side][s] < 0) continue;
            b->inject_at[b->K] = (side ? b->tail : b->head)[s];
            b->inject_row[b->K++] = b->entity[side][s];
        }
}

/* -- places of words against the mentions ---------------------------------------------------------------- */

static int32_t place_at(int32_t t, int32_t first, int32_t end, int32_t most) {
    int32_t d = t < first ? t - first : t < end ? 0 : t - end + 1;
    return (int32_t)(larger(-most, smaller(d, most)) + most);
}

void rp_batch_places(rp_batch *b, int32_t most) {
    for (int32_t t = 0; t < b->T; t++) {
        int32_t s = b->sequence[t];
        b->distance[0][t] = place_at(t, b->head[s], b->head_end[s], most);
        b->distance[1][t] = place_at(t, b->tail[s], b->tail_end[s], most);
    }
    for (int32_t s = 0; s < b->S; s++) {
        b->cu_pieces[3 * s] = b->cu_seqlens[s];
        b->cu_pieces[3 * s + 1] = (int32_t)smaller(b->head_end[s], b->tail_end[s]);
        b->cu_pieces[3 * s + 2] = (int32_t)larger(b->head_end[s], b->tail_end[s]);
    }
    b->cu_pieces[3 * b->S] = b->T;
}
