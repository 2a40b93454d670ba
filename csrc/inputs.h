/* A batch's integers on the device: what networks, representations and losses read of it. Level 2.
 *
 * Where the back end has buckets (rp_ops.bucket), batches of few tokens are filled up with sequences of their own,
 * behind those of the batch: then the same sizes come again and again, and with them the same work (rp_ops.list_begin).
 * Nothing reads what is computed of these, and no gradient comes from them. */
#ifndef RP_INPUTS_H
#define RP_INPUTS_H

#include <stdbool.h>

#include "arena.h"
#include "batch.h"
#include "ops.h"

typedef struct rp_inputs {
    int64_t S, M;             /* of the batch */
    int64_t sequences, T, R;  /* with those that fill it up */
    bool filled;              /* whether there are any */
    int32_t *ids, *pos;       /* (T) */
    int32_t *sequence;        /* (T) */
    int32_t *read, *read_pos; /* (R) the rows of the last layer's output that are read */
    int32_t *read_sequence;   /* (R) */
    int32_t *cu_seqlens;      /* (sequences+1) */
    int32_t *cu_read;         /* (sequences+1) */
    int32_t *sample;          /* (sequences) */
    int32_t *head, *tail;     /* (S) */
    int32_t *head_first;      /* (S) */
    int32_t *tail_first;      /* (S) */
    int32_t *head_end;        /* (S) */
    int32_t *tail_end;        /* (S) */
    int32_t *relation;        /* (S) */
    int32_t *prompt_row;      /* (S) */
    int32_t *mlm_row;         /* (M) */
    int32_t *mlm_label;       /* (M) */
    int32_t *span_left;       /* (M) */
    int32_t *span_right;      /* (M) */
    int32_t *span_place;      /* (M) */
    int32_t *step;            /* (1) of dropout */
    int64_t most_sequences, most_tokens;
    char *memory, *host; /* of all these, laid out anew for each batch; and the host's copy of it */
    size_t bytes;
} rp_inputs;

/* Takes the memory from the arena; call with a measuring arena first. `inputs` is all 0, or was planned before. */
void rp_inputs_plan(rp_inputs *inputs, rp_arena *arena, int64_t max_sequences, int64_t max_tokens);
/* Frees the host's copy, which the first upload makes. */
void rp_inputs_close(rp_inputs *inputs);

/* Also notes in the batch which rows are read. `fill`: whether the batch may be filled up, with sequences of at most
 * RP_INPUTS_FILL_LENGTH tokens, whose ids are 0. VALUE when a prompt's [MASK] is to be read and a sequence has none. */
rp_status rp_inputs_upload(rp_inputs *inputs, rp_dev *dev, rp_batch *batch, const rp_reads *reads, uint32_t step,
                           bool fill);

/* Batches of more tokens stay as they are: their work takes the device longer than it takes to be described to it. */
#define RP_INPUTS_FILL_TOKENS 8192
#define RP_INPUTS_FILL_SEQUENCES 9
#define RP_INPUTS_FILL_LENGTH 16

#endif
