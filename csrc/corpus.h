/* A tokenized corpus: flat arrays that somebody else owns (mmapped .npy files), checked once, and an index. Level 1. */
#ifndef RP_CORPUS_H
#define RP_CORPUS_H

#include <stdint.h>

#include "status.h"

/* What a corpus may say of each word: its part of speech, the kind of named entity that it belongs to. */
typedef enum rp_tag { RP_TAG_POS, RP_TAG_NER, RP_TAGS } rp_tag;

/* The arrays; they must outlive the corpus. Word pieces only: no [CLS], markers or [SEP]. */
typedef struct rp_corpus_arrays {
    int64_t n; /* sentences */
    int64_t n_ids;
    const int32_t *ids;     /* (n_ids) */
    const int64_t *offsets; /* (n+1) sentence i is ids[offsets[i] .. offsets[i+1]] */
    const int32_t *spans;   /* (n,4) head start, head end, tail start, tail end; half-open, from the sentence's start */
    const int32_t *relation;              /* (n) 0 .. n_relations-1 */
    const int32_t *head_id, *tail_id;     /* (n) entity numbers, -1 unknown */
    const int32_t *head_type, *tail_type; /* (n) type numbers, -1 unknown */
    int32_t n_relations, n_types;
    int64_t n_type_ids;
    const int32_t *type_ids;     /* (n_type_ids) word pieces of the types' names */
    const int64_t *type_offsets; /* (n_types+1) */
    int32_t vocab_size;
    const int32_t *tags[RP_TAGS]; /* (n_ids) each, 0 where a word has none; NULL where the corpus has none */
    int32_t n_tags[RP_TAGS];      /* tags are below it */
} rp_corpus_arrays;

typedef struct rp_corpus {
    rp_corpus_arrays a;
    int64_t *relation_start; /* (n_relations+1) */
    int64_t *relation_rows;  /* (n) rows sorted by relation, stable */
    uint64_t *text_hash;     /* (n) of a sentence's ids: equal sentences have equal hashes */
    int64_t longest;         /* word pieces of the longest sentence, */
    int64_t longest_type;    /* and of the longest type name; 0 without any */
    void *memory;            /* behind the three arrays */
} rp_corpus;

/* Checks every offset, span, id and relation (VALUE names the row, the field, the value and the range) and builds the
 * index. Offsets begin at 0, never fall, and end at n_ids. Spans: 0 <= start < end <= length; head and tail do not
 * overlap. A type's name has at least one word piece. */
rp_status rp_corpus_new(rp_corpus **out, const rp_corpus_arrays *arrays);
void rp_corpus_free(rp_corpus *corpus);

#endif
