/* Which sentences meet in a step, and the worker that prepares the next step's batch. Level 1. */
#ifndef RP_SAMPLER_H
#define RP_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "batch.h"
#include "corpus.h"

typedef struct rp_sampler_options {
    uint64_t seed;
    int64_t pairs;            /* pairs a step */
    int64_t max_length;       /* word pieces a sentence, specials included */
    double relation_exponent; /* 0 .. 4: relations are drawn in proportion to count^exponent: 1 share, 0 uniform */
    bool distinct_relations;  /* no relation twice in a step while others are left: draws without replacement */
    double p_blank;           /* probability that a mention is blanked, per mention, sample and step */
    double mlm_probability;   /* 0: no masking */
    double input_weight[5];   /* how often a sample is given in each rp_input setting; sums to 1 */
    bool prefetch;
    int64_t pairs_per_relation; /* consecutive pairs that share one draw of a relation, 1 or more */
    bool role_blanks;           /* a blanked mention is the subject or object token, as in OnlyC, not [BLANK] */
} rp_sampler_options;

typedef struct rp_sampler rp_sampler;

/* The corpus and `tokens->special` must outlive the sampler. VALUE: no relation has two different sentences ("no pair
 * left"), options out of range. */
rp_status rp_sampler_new(rp_sampler **out, const rp_corpus *corpus, const rp_tokens *tokens,
                         const rp_sampler_options *options);
void rp_sampler_free(rp_sampler *sampler); /* joins the worker; takes NULL */

/* Relations that can be drawn, and sentences left out because theirs has only one. */
void rp_sampler_counts(const rp_sampler *sampler, int64_t *relations, int64_t *left_out);

/* The rows of pair `pair` of step `step`: a function of (seed, step, pair) and the options alone. */
rp_status rp_sampler_pair(const rp_sampler *sampler, int64_t step, int64_t pair, int64_t rows[2]);

/* The batch of step `step`: samples 2i and 2i+1 are pair i. Valid until the second next call. With prefetch the worker
 * goes on to build step + 1; any other step asked for next is built at once. The same bytes with and without it. */
rp_status rp_sampler_batch(rp_sampler *sampler, int64_t step, const rp_batch **out);

#endif
