/* A run that encodes: corpus rows to relation vectors, or plain token ids to hidden states. Level 3. */
#ifndef RP_ENCODE_H
#define RP_ENCODE_H

#include "batch.h"
#include "corpus.h"
#include "model.h"
#include "network.h"

typedef struct rp_encode_run rp_encode_run;

/* A workspace for calls of any number of sequences, which its threads take in batches of at most max_sequences
 * sequences and max_tokens tokens. The model must outlive the run. `poll` is asked in the calling thread alone. */
rp_status rp_encode_run_new(rp_encode_run **out, const rp_model *model, int64_t max_sequences, int64_t max_tokens,
                            int64_t num_threads, rp_dtype dtype, int (*poll)(void *), void *poll_context);
void rp_encode_run_free(rp_encode_run *run); /* takes NULL */

typedef struct rp_encode_counts {
    int64_t tokens, truncated, truncated_mentions;
} rp_encode_counts;

/* out(n, dim) = vectors of corpus rows[0..n) in the setting `input`, in that order. Counts are added to. VALUE: rows,
 * lengths or ids out of range, tags that the network reads and the corpus lacks, tokens for another kind of network. */
rp_status rp_encode_rows(rp_encode_run *run, const rp_represent *spec, float *out, rp_encode_counts *counts,
                         const rp_corpus *corpus, const rp_tokens *tokens, const int64_t *rows, int64_t n,
                         rp_input input, int64_t max_length);

/* out(T,H) = hidden states of S sequences of token ids. VALUE: a CNN, ids out of the vocabulary, sequences empty or
 * longer than the model's positions or the run's max_tokens. */
rp_status rp_encode_ids(rp_encode_run *run, float *out, const int32_t *ids, const int32_t *cu_seqlens, int64_t S);

#endif
