/* Which tokens of a batch are masked, for the losses that recover them: words, or whole spans. Level 1: integers only,
 * no operations. Either is called for the sequences of a batch in ascending order, once each, and draws from the
 * streams of (key, step, sample number). Ids that are special stay as they are and are not recovered. */
#ifndef RP_MASKING_H
#define RP_MASKING_H

#include "batch.h"

/* Spans of entity and relation words. In each sample the following are masked, each by itself:
 *   a mention     all that stands between its markers, with mention_probability
 *   relation words   with relation_probability one run of whole words between the two mentions: its length is drawn
 * from P(l) ~ (1 - length_p)^(l - 1), l = 1 .. longest or as many words as stand there, its first word then uniformly
 * (Joshi et al. 2020, section 3.1, whose spans are drawn from all of a long text) of whose tokens 80 % become [MASK],
 * 10 % random words that are not special, 10 % stay, all of a span alike (ibid.). */
typedef struct rp_span_masking {
    double mention_probability, relation_probability; /* both 0: no spans are masked */
    double length_p;                                  /* above 0, at most 1 (each span a word) */
    int64_t longest;                                  /* words, 1 or more */
} rp_span_masking;

/* VALUE: an option is out of range; spans where sequences are bare, which have no markers around them. */
rp_status rp_span_masking_check(const rp_span_masking *options, const rp_tokens *tokens);

/* Words of sequence s: each token of the text is chosen with `probability`; of the chosen, 80 % become [MASK], 10 % a
 * random word that is not special, 10 % stay (Devlin et al. 2019, section 3.1). Each is a span of its own. */
void rp_mask_words(rp_batch *batch, const rp_tokens *tokens, int32_t s, double probability, uint64_t key,
                   uint32_t step);

/* Spans of sequence s. A prompt goes on repeating what stands between the markers, as masked. */
void rp_mask_spans(rp_batch *batch, const rp_tokens *tokens, int32_t s, const rp_span_masking *options, uint64_t key,
                   uint32_t step);

#endif
