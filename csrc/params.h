/* The parameter table: the single source for init, load, save and update. Level 2.
 *
 * Values, gradients and both Adam moments are flat buffers of `total` floats with one layout: a parameter's offset is
 * the same in all four. This file has the list of an encoder; that of a CNN is in cnn.c. An encoder's names are Hugging
 * Face's, without the "bert." prefix. The three weights of query, key and value stand one after another, and so do
 * their biases, so that one product makes all three. */
#ifndef RP_PARAMS_H
#define RP_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

/* The fields of config.json that shape the network, and what sets BERT's relatives apart from it. */
typedef struct rp_config {
    int64_t vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size;
    int64_t max_position_embeddings;
    int64_t position_offset; /* of the first token's position (RoBERTa: those up to the padding's come before) */
    int64_t type_vocab_size; /* 0: no token types (DistilBERT) */
    int64_t embedding_size;  /* E, of the vectors in the embeddings' tables */
    double layer_norm_eps, initializer_range, hidden_dropout_prob, attention_probs_dropout_prob;
    bool embedding_projection; /* a linear map from E to H behind the embeddings; without it E is H */
    bool shared_layers;        /* all layers have the first one's parameters (ALBERT) */
    bool attended_dropout;     /* whether what the attention gives goes through dropout (not in DistilBERT) */
    bool feed_forward_dropout; /* the same of what the feed-forward layers give (not in ALBERT) */
    int64_t graph_size;        /* of a graph's entity embeddings, injected at the markers; 0: there is no graph */
} rp_config;

typedef enum rp_init { RP_INIT_NORMAL, RP_INIT_ZERO, RP_INIT_ONE } rp_init;

typedef struct rp_param {
    char name[80];
    int64_t rows, columns; /* columns 0: a vector of `rows` */
    int64_t offset, count; /* in floats */
    rp_init init;
    double std;    /* of NORMAL, with mean 0 */
    bool decay;    /* weight decay: not for biases and LayerNorm */
    bool mlm_head; /* used by the masked-word loss alone */
} rp_param;

/* Offsets of one layer. */
typedef struct rp_layer_params {
    int64_t qkv_weight, qkv_bias; /* (3H,H), (3H) */
    int64_t out_weight, out_bias; /* (H,H), (H) */
    int64_t norm1_gamma, norm1_beta;
    int64_t up_weight, up_bias;     /* (F,H), (F) */
    int64_t down_weight, down_bias; /* (H,F), (H) */
    int64_t norm2_gamma, norm2_beta;
} rp_layer_params;

typedef struct rp_params {
    int64_t count, capacity, total;
    rp_param *table;           /* (count) */
    struct rp_cnn_params *cnn; /* of a CNN (cnn.h), for which all below is 0; NULL of an encoder */
    uint32_t site;             /* of the first parameter's random numbers; the next ones' follow */
    rp_config config;
    int64_t word, position, norm_gamma, norm_beta;
    int64_t type;                             /* -1: there are no token types */
    int64_t project_weight, project_bias;     /* (H,E), (H) where embeddings are projected */
    rp_layer_params *layers;                  /* (num_hidden_layers), all the same where they are shared */
    int64_t transform_weight, transform_bias; /* (E,H), (E) */
    int64_t transform_gamma, transform_beta, decoder_bias;
    int64_t graph_weight; /* (E,graph_size) where a graph is injected */
} rp_params;

/* Tokens of the longest sequence; the most columns of a matrix product in the encoder. */
int64_t rp_config_positions(const rp_config *config);
int64_t rp_config_widest(const rp_config *config);

/* Builds an encoder's table. VALUE names the field that is out of range. */
rp_status rp_params_new(rp_params **out, const rp_config *config);
void rp_params_free(rp_params *params);

/* A table of parameters beside a model's: none at first, at most `capacity`. rp_params_add appends one called
 * "owner.part", NORMAL with standard deviation `std`, and returns its offset. */
rp_status rp_params_new_heads(rp_params **out, int64_t capacity, double std);
int64_t rp_params_add(rp_params *heads, const char *owner, const char *part, int64_t rows, int64_t columns,
                      rp_init init, bool decay);

/* Index of the parameter of that name, -1 when there is none. */
int64_t rp_params_find(const rp_params *params, const char *name);

/* Initial values of parameter `index` into values(count): a function of (seed, site + index). */
void rp_params_init(const rp_params *params, int64_t index, uint64_t seed, float *values);

/* For lists of parameters: an empty table with room for `capacity`, and a parameter more, whose offset is returned. */
rp_status rp_params_open(rp_params **out, int64_t capacity);
int64_t rp_params_append(rp_params *params, int64_t rows, int64_t columns, rp_init init, double std, bool decay,
                         const char *name);

/* VALUE names the field of a configuration that is out of range. */
rp_status rp_config_in_range(const char *field, int64_t value, int64_t least, int64_t most);

#endif
