#include "join.h"

#include <string.h>

/* -- checks and sizes ------------------------------------------------------------------------------------ */

static rp_status check_fixed(const rp_join_part_options *o, int64_t i) {
    if (o->fixed != NULL && o->rows >= 1 && o->dim >= 1) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "part %lld has neither a model nor vectors; give one", (long long)i);
}

rp_status rp_join_check(const rp_join_options *o) {
    const rp_model *first = NULL;
    if (o->parts < 1 || o->parts > RP_JOIN_PARTS)
        return rp_fail(RP_STATUS_VALUE, "a vector of %lld parts, expected 1 to %d", (long long)o->parts, RP_JOIN_PARTS);
    for (int64_t i = 0; i < o->parts; i++) {
        const rp_model *model = o->part[i].model;
        if (model == NULL) {
            RP_TRY(check_fixed(&o->part[i], i));
            continue;
        }
        RP_TRY(rp_represent_check(&o->part[i].represent));
        for (int64_t j = 0; j < i; j++)
            if (o->part[j].model == model)
                return rp_fail(RP_STATUS_VALUE, "parts %lld and %lld are one model; give each a copy of its own",
                               (long long)j, (long long)i);
        if (first == NULL) first = model;
        if (strcmp(model->backend, first->backend) != 0)
            return rp_fail(RP_STATUS_VALUE, "part %lld is on the back end %s, the first network on %s", (long long)i,
                           model->backend, first->backend);
    }
    return first != NULL ? RP_OK : rp_fail(RP_STATUS_VALUE, "no part is a network: there is nothing to train");
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

rp_network_sizes rp_join_sizes(const rp_join_options *o) {
    rp_network_sizes all = {0};
    bool found = false;
    for (int64_t i = 0; i < o->parts; i++) {
        if (o->part[i].model == NULL) continue;
        rp_network_sizes own = rp_network_sizes_of(o->part[i].model->params);
        if (!found) {
            all = own;
            found = true;
            continue;
        }
        if (own.positions < all.positions) all.positions = own.positions;
        all.vocab_size = larger(all.vocab_size, own.vocab_size);
        all.most_dim = larger(all.most_dim, own.most_dim);
        all.widest = larger(all.widest, own.widest);
        all.weight = larger(all.weight, own.weight);
        all.head_size = larger(all.head_size, own.head_size);
    }
    return all;
}

/* -- life ------------------------------------------------------------------------------------------------ */

rp_status rp_join_open(rp_join *j, const rp_join_options *options) {
    *j = (rp_join){.options = *options, .first = -1};
    for (int64_t i = 0; i < options->parts; i++) {
        const rp_join_part_options *o = &options->part[i];
        rp_join_part *part = &j->part[i];
        part->column = j->dim;
        part->dim = o->model == NULL ? o->dim : rp_network_dim(o->model->params, &o->represent);
        j->dim += part->dim;
        if (o->model == NULL) continue;
        if (j->first < 0) j->first = (int)i;
        part->number = j->networks++;
        RP_TRY(rp_network_open(&part->network, o->model));
    }
    return RP_OK;
}

void rp_join_close(rp_join *j) {
    for (int64_t i = 0; i < j->options.parts; i++) rp_network_close(&j->part[i].network);
}

void rp_join_plan(rp_join *j, rp_arena *arena, rp_arena *host, const rp_capacity *most) {
    size_t S = (size_t)most->sequences;
    bool several = j->options.parts > 1;
    for (int64_t i = 0; i < j->options.parts; i++) {
        rp_join_part *part = &j->part[i];
        size_t row = (size_t)part->dim * sizeof(float);
        if (several) part->vectors = rp_arena_take(arena, S, row);
        if (j->options.part[i].model == NULL) {
            part->host_fixed = rp_arena_take(host, S, row);
            continue;
        }
        rp_capacity own = *most;
        if ((int)i != j->first) own.spare = 0;
        rp_network_plan(&part->network, arena, &own);
        if (several) part->dvectors = rp_arena_take(arena, S, row);
    }
    if (!several) return;
    j->place = rp_arena_take(arena, S, sizeof(int32_t));
    j->places = rp_arena_take(host, S, sizeof(int32_t));
}

rp_status rp_join_upload(rp_join *j, rp_dev *dev, int64_t max_sequences) {
    if (j->options.parts == 1) return RP_OK;
    for (int64_t s = 0; s < max_sequences; s++) j->places[s] = (int32_t)s;
    return dev->ops->upload(dev, j->place, j->places, max_sequences * (int64_t)sizeof(int32_t));
}

/* -- forward and backward -------------------------------------------------------------------------------- */

/* The seeds are as far apart as 64 bits allow (Weyl's sequence of the golden ratio). */
static rp_pass pass_of(const rp_join_part *part, const rp_pass *pass) {
    rp_pass own = *pass;
    own.seed += (uint64_t)part->number * 0x9E3779B97F4A7C15u;
    return own;
}

static rp_status fixed_forward(rp_join_part *part, const rp_join_part_options *o, rp_dev *dev, const rp_batch *batch) {
    for (int32_t s = 0; s < batch->S; s++) {
        if (batch->row[s] < 0 || batch->row[s] >= o->rows)
            return rp_fail(RP_STATUS_VALUE, "the batch has row %lld, the fixed vectors are of %lld",
                           (long long)batch->row[s], (long long)o->rows);
        memcpy(part->host_fixed + s * part->dim, o->fixed + batch->row[s] * part->dim,
               (size_t)part->dim * sizeof(float));
    }
    return dev->ops->upload(dev, part->vectors, part->host_fixed, batch->S * part->dim * (int64_t)sizeof(float));
}

rp_status rp_join_forward(rp_join *j, rp_dev *dev, float *vectors, rp_batch *const *batches, const rp_reads *also,
                          const rp_pass *pass) {
    bool several = j->options.parts > 1;
    for (int64_t i = 0; i < j->options.parts; i++) {
        rp_join_part *part = &j->part[i];
        const rp_join_part_options *o = &j->options.part[i];
        rp_pass own = pass_of(part, pass);
        if (o->model == NULL)
            RP_TRY(fixed_forward(part, o, dev, batches[0]));
        else
            RP_TRY(rp_network_forward(&part->network, dev, several ? part->vectors : vectors, o->model->values,
                                      batches[part->number], &o->represent, also, &own));
        if (several)
            RP_TRY(dev->ops->rows_gather(dev, vectors + part->column, j->dim, part->vectors, j->place, batches[0]->S,
                                         part->dim));
    }
    return RP_OK;
}

rp_status rp_join_begin(rp_join *j, rp_dev *dev) {
    for (int64_t i = 0; i < j->options.parts; i++)
        if (j->options.part[i].model != NULL) RP_TRY(rp_network_begin(&j->part[i].network, dev));
    return RP_OK;
}

/* *own: the part's columns of dvectors. */
static rp_status own_gradient(rp_join *j, rp_join_part *part, rp_dev *dev, const float *dvectors, const float **own) {
    int64_t S = part->network.inputs.S;
    *own = dvectors;
    if (dvectors == NULL || j->options.parts == 1) return RP_OK;
    *own = part->dvectors;
    RP_TRY(dev->ops->zero(dev, part->dvectors, S * part->dim * (int64_t)sizeof(float)));
    return dev->ops->rows_scatter_add(dev, part->dvectors, dvectors + part->column, j->dim, j->place, S, part->dim);
}

rp_status rp_join_backward(rp_join *j, rp_dev *dev, const rp_tensors *tensors, const float *dvectors,
                           const rp_pass *pass) {
    for (int64_t i = 0; i < j->options.parts; i++) {
        rp_join_part *part = &j->part[i];
        const rp_join_part_options *o = &j->options.part[i];
        rp_pass own = pass_of(part, pass);
        const float *dpart;
        if (o->model == NULL) continue;
        RP_TRY(own_gradient(j, part, dev, dvectors, &dpart));
        RP_TRY(rp_network_backward(&part->network, dev, tensors[part->number].values, tensors[part->number].grads,
                                   dpart, &o->represent, &own));
    }
    return RP_OK;
}
