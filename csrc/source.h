/* Where the samples of a step come from: rows of the corpus, the same number in each step. Level 1.
 *
 * A draw is a function of the seed, the source's place among those of the run, the step, the draw's number in the step
 * and the options, and of nothing else. */
#ifndef RP_SOURCE_H
#define RP_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "corpus.h"
#include "episodes.h"

enum { RP_SOURCES = 4 /* of a run, at most */, RP_MAX_PAIRS = INT32_MAX / 2 - 1 };

typedef enum rp_source_kind {
    RP_SOURCE_RELATIONS, /* pairs of different sentences with the same relation (Peng et al. 2020, section 3.1) */
    RP_SOURCE_ENTITIES,  /* pairs with the same pair of entities, and pairs without (Baldini Soares et al. 2019) */
    RP_SOURCE_INSTANCES, /* single sentences, all of them in the shuffled order of one epoch after another */
    RP_SOURCE_EPISODES,  /* N-way K-shot episodes (Snell et al. 2017) */
    RP_SOURCE_BAGS,      /* bags of sentences with the same pair of entities and relation (Riedel et al. 2010) */
    RP_SOURCE_KINDS
} rp_source_kind;

typedef struct rp_source_options {
    rp_source_kind kind;
    bool target;   /* draws from the sampler's second corpus, whose relations are not known */
    int64_t count; /* a step: pairs; of instances, sentences; episodes; bags */
    /* relations */
    double relation_exponent;   /* 0 .. 4: relations are drawn in proportion to count^exponent: 1 share, 0 uniform */
    bool distinct_relations;    /* no relation twice in a step while others are left: draws without replacement */
    int64_t pairs_per_relation; /* consecutive pairs that share one draw of a relation, 1 or more */
    /* entities */
    double positive_share; /* of the pairs: same entities; exact, and spread evenly over the step */
    double hard_share;     /* of the others: exactly one entity in common */
    /* instances */
    bool whole_epochs; /* a step ends with its epoch, with fewer sentences where they do not go round */
    /* episodes */
    int64_t n_way, k_shot, n_query; /* relations; sentences of each that support, and that ask */
    /* bags */
    int64_t bag_size; /* sentences of a bag, at most */
} rp_source_options;

typedef struct rp_draw {
    int64_t row;
    int32_t pair; /* number of the row's ordered pair of entities, of bags the bag's in the step; -1: none */
} rp_draw;

/* What can be drawn: relations, pairs of entities, sentences, or bags; and sentences left out because theirs cannot.
 */
typedef struct rp_source_counts {
    int64_t drawable, left_out;
} rp_source_counts;

/* Each draw's key of random numbers: by the seed, the place of the source, and the site among that source's uses. */
uint64_t rp_source_key(uint64_t seed, int32_t place, uint32_t site);
enum {
    RP_SITE_RELATION,
    RP_SITE_ROWS,
    RP_SITE_ROUND,
    RP_SITE_ENTITIES,
    RP_SITE_EPOCH,
    RP_SITE_EPISODES,
    RP_SITE_BAGS,
    RP_SITES = 16
};

/* Random tries for a fitting partner before the rows are searched for one. */
enum { RP_ROW_TRIES = 16 };

/* Whether both entities of a row are known; two rows have the same text; the same pair of entities, both known. */
bool rp_row_has_pair(const rp_corpus *corpus, int64_t row);
bool rp_rows_same_text(const rp_corpus *corpus, int64_t a, int64_t b);
bool rp_rows_same_pair(const rp_corpus *corpus, int64_t a, int64_t b);

/* -- relations (source_relations.c) ---------------------------------------------------------------------------------
 */
typedef struct rp_ticket {
    double time;
    int32_t entry; /* index into drawable */
} rp_ticket;

typedef struct rp_relations {
    uint64_t relation_key, rows_key, round_key;
    int32_t n_drawable;
    int32_t *drawable;  /* (n_drawable) relation numbers, ascending */
    double *weight;     /* (n_drawable) (count / largest count)^exponent */
    double *cumulative; /* (n_drawable) sums of the weights up to and with the entry's */
    uint8_t *one_pair;  /* (n_drawable) all of the relation's rows have one and the same known entity pair */
    uint8_t *can_draw;  /* (relations) */
} rp_relations;

void rp_relations_plan(rp_relations *s, rp_arena *arena, const rp_corpus *corpus);
rp_status rp_relations_fill(rp_relations *s, const rp_corpus *corpus, const rp_source_options *o,
                            rp_source_counts *counts);
/* Pairs of a step to out(2 count). tickets: n_drawable. */
void rp_relations_draw(const rp_relations *s, const rp_corpus *corpus, const rp_source_options *o, uint32_t step,
                       rp_draw *out, rp_ticket *tickets);

/* -- entities (source_entities.c) ------------------------------------------------------------------------------------
 * Rows with both entities known are numbered by their ordered pair. A pair of entities can be drawn when it stands in
 * two different sentences. Anchors are uniform over the rows of such pairs:
 *   positive  another row of the pair, with another text
 *   hard      any row that has exactly one of the anchor's entities; the anchor is one that has such a row
 *   else      another anchor, of another pair: so either side of it is drawn as those of positives are */
typedef struct rp_mention {
    int32_t entity;
    int64_t row;
} rp_mention;

typedef struct rp_entities {
    uint64_t key;
    int64_t n_pairs, n_anchors, n_hard, n_mentions;
    int32_t *pair;        /* (n) number of each row's pair, -1 without */
    int64_t *pair_start;  /* (n_pairs+1) */
    int64_t *pair_rows;   /* rows by pair */
    int64_t *anchors;     /* (n_anchors) rows of pairs that can be drawn */
    int64_t *hard;        /* (n_hard) those of them that have a hard negative */
    rp_mention *mentions; /* (n_mentions) by entity, then row; a row with one entity twice stands once */
} rp_entities;

void rp_entities_plan(rp_entities *s, rp_arena *arena, const rp_corpus *corpus);
rp_status rp_entities_fill(rp_entities *s, const rp_corpus *corpus, const rp_source_options *o,
                           rp_source_counts *counts);
void rp_entities_draw(const rp_entities *s, const rp_corpus *corpus, const rp_source_options *o, uint32_t step,
                      rp_draw *out);

/* -- instances (source_instances.c) ----------------------------------------------------------------------------------
 * Sentence number p of the run is step * count + its number in the step; epoch p / n draws row p % n of a permutation
 * that is a function of (seed, epoch). A step may end one epoch and begin the next, unless they are to stay whole: then
 * the last step of each draws what is left of it. Returns the number of draws. */
int64_t rp_instances_draw(uint64_t key, const rp_corpus *corpus, const rp_source_options *o, uint32_t step,
                          rp_draw *out);

/* Where 0 <= index < n stands in the permutation of an epoch. */
uint64_t rp_permuted(uint64_t key, uint32_t epoch, uint64_t index, uint64_t n);

/* -- episodes (source_episodes.c) ------------------------------------------------------------------------------------
 * Episode number e of the run is step * count + its number in the step: rp_episodes over the different texts of each
 * relation that has k_shot + n_query of them, so that no way has a sentence twice; then a row of each text, uniform. A
 * sentence of two relations may stand in the ways of both. The samples of an episode: supports (n_way, k_shot), then
 * queries (n_way, n_query). */
typedef struct rp_episode_source {
    uint64_t rows_key;
    rp_episodes *episodes; /* over texts; classes are the relations that can be drawn */
    int64_t *text_start;   /* (texts+1) */
    int64_t *text_rows;    /* rows by text */
    uint8_t *can_draw;     /* (relations) */
} rp_episode_source;

void rp_episode_source_plan(rp_episode_source *s, rp_arena *arena, const rp_corpus *corpus);
rp_status rp_episode_source_fill(rp_episode_source *s, const rp_corpus *corpus, const rp_source_options *o,
                                 rp_source_counts *counts, uint64_t seed);
/* Episodes of a step to out. texts: as many as an episode has samples. */
void rp_episode_source_draw(const rp_episode_source *s, const rp_source_options *o, uint32_t step, rp_draw *out,
                            int64_t *texts);

/* -- bags (source_bags.c) --------------------------------------------------------------------------------------------
 * A bag is the rows of one ordered pair of entities, both known, and one relation. Bag number b of the run is step *
 * count + its number in the step, drawn as instances are; of a bag with more than bag_size rows so many are drawn, in
 * their order. Bags differ in size, and with them steps. */
typedef struct rp_bag_source {
    uint64_t key, rows_key;
    int64_t n_bags;
    int64_t *bag_start; /* (n_bags+1) */
    int64_t *bag_rows;  /* rows by bag, ascending */
} rp_bag_source;

void rp_bag_source_plan(rp_bag_source *s, rp_arena *arena, const rp_corpus *corpus);
rp_status rp_bag_source_fill(rp_bag_source *s, const rp_corpus *corpus, rp_source_counts *counts);
/* Bags of a step to out; returns the number of draws. */
int64_t rp_bag_source_draw(const rp_bag_source *s, const rp_source_options *o, uint32_t step, rp_draw *out);

/* -- any of them (source.c) ------------------------------------------------------------------------------------------
 */
typedef struct rp_source {
    rp_source_options options;
    const rp_corpus *corpus;
    rp_source_counts counts;
    union {
        rp_relations relations;
        rp_entities entities;
        uint64_t instances; /* the key */
        rp_episode_source episodes;
        rp_bag_source bags;
    } of;
    void *memory;
} rp_source;

/* Samples that a source of these options gives a step; at most, where steps differ. */
int64_t rp_source_samples(const rp_source_options *options);
/* Why steps differ in their number of samples, as the end of "source 1 ..."; NULL: they do not. */
const char *rp_source_varies(const rp_source_options *options);
rp_status rp_source_check(const rp_source_options *options);

/* The corpus must outlive it. VALUE: nothing can be drawn; says what there is, and what would be needed. */
rp_status rp_source_init(rp_source *source, const rp_corpus *corpus, const rp_source_options *options, uint64_t seed,
                         int32_t place);
void rp_source_close(rp_source *source);

bool rp_source_can_draw(const rp_source *source, int64_t row);

/* The samples of a step to out(rp_source_samples), and their number. scratch: rp_source_scratch bytes. */
size_t rp_source_scratch(const rp_source *source);
int64_t rp_source_draw(const rp_source *source, uint32_t step, rp_draw *out, void *scratch);

#endif
