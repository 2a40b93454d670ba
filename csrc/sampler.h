/* The batches of a run: which sentences meet in a step, in which form, and the worker that prepares the next step's.
 * Level 1. */
#ifndef RP_SAMPLER_H
#define RP_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "batch.h"
#include "corpus.h"
#include "masking.h"
#include "source.h"

typedef struct rp_sampler_options {
    uint64_t seed;
    int64_t max_length;     /* word pieces a sentence, specials included */
    double p_blank;         /* probability that a mention is blanked, per mention, sample and step */
    bool role_blanks;       /* a blanked mention is the subject or object token, as in OnlyC, not [BLANK] */
    double mlm_probability; /* that a word is masked; 0: no words are */
    rp_span_masking spans;  /* in place of words */
    double graph_dropout;   /* probability that a sample gets nothing of the graph, where there is one */
    double input_weight[5]; /* how often a sample is given in each rp_input setting; sums to 1 */
    bool prefetch;
    int64_t sources; /* 1 .. RP_SOURCES; their samples follow one another */
    rp_source_options source[RP_SOURCES];
} rp_sampler_options;

typedef struct rp_sampler rp_sampler;

/* A corpus, and the tokens that its sequences are made with. */
typedef struct rp_text {
    const rp_corpus *corpus;
    const rp_tokens *tokens;
} rp_text;

/* target: where sources ask for it, else NULL. The corpora and their `tokens->special` must outlive the sampler. VALUE:
 * a source can draw nothing, options out of range. */
rp_status rp_sampler_new(rp_sampler **out, const rp_corpus *corpus, const rp_tokens *tokens, const rp_text *target,
                         const rp_sampler_options *options);
void rp_sampler_free(rp_sampler *sampler); /* joins the worker; takes NULL */

int64_t rp_sampler_sources(const rp_sampler *sampler);

/* What source number `source` can draw, and what it leaves out. */
void rp_sampler_counts(const rp_sampler *sampler, int64_t source, rp_source_counts *counts);

/* Samples of a step, at most; and what step `step` draws, to draws(samples), *count of them: a function of (seed, step)
 * and the options alone. */
int64_t rp_sampler_samples(const rp_sampler *sampler);
rp_status rp_sampler_draws(const rp_sampler *sampler, int64_t step, rp_draw *draws, int64_t *count);

/* The batch of step `step`. Valid until the second next call. With prefetch the worker goes on to build step + 1; any
 * other step asked for next is built at once. The same bytes with and without it. */
rp_status rp_sampler_batch(rp_sampler *sampler, int64_t step, const rp_batch **out);

#endif
