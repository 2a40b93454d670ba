/* The packed batch: where data and models meet. Level 1: integers only, no operations.
 *
 * One batch holds all samples of a step; a micro-batch is a slice of it. All arrays are host memory of the batch. */
#ifndef RP_BATCH_H
#define RP_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "corpus.h"
#include "status.h"

#define RP_BATCH_MIN_LENGTH 16    /* the narrowest window: six fixed tokens and ten word pieces */
#define RP_BATCH_MAX_LENGTH 65535 /* a place in a sequence fits 16 bits (rp_dropout) */
#define RP_BATCH_FIXED 6          /* [CLS], four markers of one token, [SEP] */
#define RP_SPAN_PLACES 64         /* of tokens in a span that are told apart; those further in have the last one's */

typedef enum rp_input { RP_INPUT_CM, RP_INPUT_CT, RP_INPUT_OC, RP_INPUT_OM, RP_INPUT_OT } rp_input;

/* What stands in a prompt for the head and for the tail. */
#define RP_PROMPT_HEAD (-1)
#define RP_PROMPT_TAIL (-2)

/* Token ids that are no text of the sentence. `special` (vocab_size flags) marks every id that is never masked, nor
 * drawn as a random replacement: these below and all others that the tokenizer calls special or unused.
 *
 * Typed markers (Zhou and Chen 2021) say the mention's type: marker m of type t, m = 0 .. 3 for the
 * head's start and end and the tail's, is marker_ids[marker_offsets[4 t + m] .. marker_offsets[4 t + m + 1]]. They
 * stand where the mention itself is given, in C+M and OnlyM; in C+T and OnlyT the type stands between the markers and
 * would be said twice, and OnlyC tells none: these have the markers of one token. */
typedef struct rp_tokens {
    int32_t cls, sep, mask, head_start, head_end, tail_start, tail_end, blank, subject, object;
    int32_t vocab_size;
    const uint8_t *special;    /* (vocab_size) */
    bool bare;                 /* sequences of words alone: no [CLS], markers and [SEP], whose ids are not read */
    bool text_order;           /* the head's markers and `subject` are the first mention's, in place of the head's */
    int32_t prompt_length;     /* 0: there is no prompt */
    const int32_t *prompt;     /* (prompt_length) word pieces, one `mask`, RP_PROMPT_HEAD and RP_PROMPT_TAIL */
    int32_t n_types;           /* of the corpus; 0: markers say no type */
    const int32_t *marker_ids; /* (marker_offsets[4 n_types]) */
    const int32_t *marker_offsets; /* (4 n_types + 1) */
    int32_t n_entities;            /* of the corpus; 0: no graph is asked */
    const int32_t *graph_row;      /* (n_entities) the row of each in a graph's table of embeddings, -1 for none */
    const uint8_t *continues;      /* (vocab_size) 1: the piece goes on with the word before it; NULL: none does */
} rp_tokens;

/* VALUE names the token that lies outside the vocabulary, or is not flagged in `special`; a prompt without `mask` or
 * with two; a prompt, typed markers or a graph where sequences are bare. */
rp_status rp_tokens_check(const rp_tokens *tokens);

/* How one sample's input is made of a corpus row. */
typedef struct rp_sample {
    int64_t row;                 /* corpus row */
    rp_input input;              /* the setting */
    bool blank_head, blank_tail; /* the mention is replaced by [BLANK] (C+M and OnlyM alone) */
    bool role_blanks;            /* … or, for the head, by the subject token, for the tail by the object token */
    bool without_graph;          /* nothing of a graph is injected */
} rp_sample;

/* What sequences are made of, for a network to take them or not. */
typedef struct rp_origin {
    int64_t vocab_size;      /* ids are below it */
    int32_t n_tags[RP_TAGS]; /* tags are below these; 0: there are none */
    bool bare;               /* sequences of words alone (rp_tokens) */
} rp_origin;

rp_origin rp_origin_of(const rp_corpus *corpus, const rp_tokens *tokens);

typedef struct rp_batch {
    int32_t S, T, M; /* sequences, tokens, masked tokens */
    int32_t max_len; /* longest sequence */
    int32_t S_capacity, T_capacity;
    int32_t *ids;               /* (T) after MLM masking */
    uint8_t *text;              /* (T) 1: of the sentence; 0: [CLS], marker, [SEP] or prompt, never masked */
    int32_t *pos;               /* (T) place in the sequence */
    int32_t *sequence;          /* (T) sequence of the token */
    int32_t *cu_seqlens;        /* (S+1) */
    int32_t *sample;            /* (S) number of the sample in the step: keys the dropout masks */
    int32_t *head, *tail;       /* (S) rows (token numbers in the batch) of the two start markers */
    int32_t *prompt_row;        /* (S) row of the prompt's [MASK]; -1 without prompt */
    int32_t *relation;          /* (S) -1: not known, the sample is of a target's text (rp_source_options) */
    int32_t *pair;              /* (S) number of the sample's pair of entities, or bag (rp_draw); -1: none */
    int32_t *mlm_row;           /* (M) rows of the masked tokens, ascending */
    int32_t *mlm_label;         /* (M) their true ids */
    int32_t *span_left;         /* (M) rows just before and just behind the span that each was masked with */
    int32_t *span_right;        /* (M) */
    int32_t *span_place;        /* (M) its place in the span, 0 .. RP_SPAN_PLACES - 1 */
    int32_t R;                  /* rows of the last layer's output that are read (rp_batch_read) */
    int32_t *read;              /* (R) these rows, ascending */
    int32_t *read_pos;          /* (R) pos of each */
    int32_t *read_sequence;     /* (R) sequence of each */
    int32_t *cu_read;           /* (S+1) those of sequence s are cu_read[s] .. cu_read[s+1] */
    int32_t *head_first;        /* (S) rows of the mentions' first word piece; head and tail without markers */
    int32_t *tail_first;        /* (S) */
    int32_t *head_end;          /* (S) rows behind their last one */
    int32_t *tail_end;          /* (S) */
    int32_t *tags[RP_TAGS];     /* (T) of the corpus; 0 of fixed tokens and of what stands in place of a mention */
    int32_t *distance[2];       /* (T) of each token to the head and the tail (rp_batch_places) */
    int64_t *row;               /* (S) of the corpus, that the sample was made of */
    int32_t *cu_pieces;         /* (3S+1) piece i of sequence s is cu_pieces[3s+i] .. cu_pieces[3s+i+1] */
    int32_t *entity[2];         /* (S) row of the head and of the tail in the graph's table, -1: nothing is injected */
    int32_t K;                  /* mentions at which a graph's embedding is injected (rp_batch_inject) */
    int32_t *inject_at;         /* (K) rows of their start markers */
    int32_t *inject_row;        /* (K) rows of the graph's table */
    rp_origin origin;           /* of its samples */
    int64_t truncated;          /* samples cut by the window */
    int64_t truncated_mentions; /* samples of which a mention itself had to be cut */
    void *memory;
} rp_batch;

/* A batch of the given capacity; max_len <= 65535 per sequence. rp_batch_free takes NULL. */
rp_status rp_batch_new(rp_batch **out, int64_t max_sequences, int64_t max_tokens);
void rp_batch_free(rp_batch *batch);
void rp_batch_clear(rp_batch *batch);

/* Appends one sample as sequence S, sample number `number`, in the order of the text:
 *   [CLS] left [E1] head [/E1] middle [E2] tail [/E2] right [SEP]
 * in the settings' forms:
 *   C+M    the sentence; a blanked mention is the one token [BLANK]
 *   C+T    each mention replaced by the word pieces of its type's name ([UNK]-free: the corpus holds them)
 *   OnlyC  head mention replaced by `subject`, tail mention by `object`
 *   OnlyM  [CLS] [E1] head [/E1] [E2] tail [/E2] [SEP] (head first; with text_order as in the text), no context
 *   OnlyT  the same with the types' names
 * or with the words alone where tokens are bare.
 * Of a graph, an entity's row goes with its mention: where a setting or a blank hides this, none does.
 * A prompt follows as a second segment of the same sequence: … right [SEP] prompt [SEP], as in the code of arXiv
 * 2312.11062, with token type 0 throughout; the entity markers stay. Where it names an entity, it repeats what stands
 * between that entity's markers in this setting, blank and window.
 * When the result is longer than max_length (>= 16), context is cut so that both mentions, all four markers and the
 * prompt stay: first evenly at the two outer ends (what one side does not need goes to the other), then in the middle
 * between the mentions, keeping the pieces nearest to either; mentions themselves are cut at their end, in the prompt
 * likewise, only when nothing else is left. Counted.
 * VALUE when the batch's capacity is exceeded, the prompt and the markers leave less than ten word pieces of
 * max_length, or the row has no type and the setting or its markers need one (says which row). */
rp_status rp_batch_add(rp_batch *batch, const rp_corpus *corpus, const rp_tokens *tokens, const rp_sample *sample,
                       int64_t max_length, int32_t number);

/* No sequence of the corpus' rows is longer in any setting, whatever max_length is. */
int64_t rp_batch_longest(const rp_corpus *corpus, const rp_tokens *tokens);

/* What of the last layer's output is read. */
typedef struct rp_reads {
    bool all;      /* every row; the others do not matter then */
    bool first;    /* the first row of each sequence, [CLS] */
    bool markers;  /* the two start markers of each sequence */
    bool mentions; /* the word pieces between the markers */
    bool prompt;   /* the [MASK] of each sequence's prompt */
    bool masked;   /* the masked tokens */
    bool outside;  /* the tokens just before and just behind the masked spans */
} rp_reads;

/* Fills R, read, read_pos, read_sequence and cu_read. */
void rp_batch_read(rp_batch *batch, const rp_reads *reads);

/* Fills K, inject_at and inject_row. */
void rp_batch_inject(rp_batch *batch);

/* Fills distance and cu_pieces. A token before a mention is at minus its distance to the first row of the mention, one
 * behind it at that to the last, one inside at 0 (Zhang et al. 2017, section 3.2), cut to -most .. most, plus `most`: a
 * row of a table of 2 most + 1. The pieces end with the mention that stands first, with the other one, and with the
 * sequence (Zeng et al. 2015, section 3.4); the last may be empty. */
void rp_batch_places(rp_batch *batch, int32_t most);

/* The view of sequences [first, last) as a batch of its own: pointers into `batch`, except cu_seqlens, head, tail,
 * their first rows and ends, prompt_row, mlm_row, span_left, span_right and sequence, which count from the slice's
 * start and are written into `slice`'s own memory (a batch made with enough capacity). slice->sample keeps the step's
 * numbers. */
rp_status rp_batch_slice(rp_batch *slice, const rp_batch *batch, int32_t first, int32_t last);

#endif
