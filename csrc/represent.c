#include "represent.h"

rp_status rp_represent_check(const rp_represent *spec) {
    if (spec->parts < 1 || spec->parts > RP_PARTS)
        return rp_fail(RP_STATUS_VALUE, "representation has %lld parts, expected 1 to %d", (long long)spec->parts,
                       RP_PARTS);
    for (int64_t i = 0; i < spec->parts; i++)
        for (int64_t j = 0; j < i; j++)
            if (spec->part[i] == spec->part[j]) return rp_fail(RP_STATUS_VALUE, "representation names one part twice");
    return RP_OK;
}

static int64_t width(rp_part part, int64_t H) {
    return part == RP_PART_ENTITY_START || part == RP_PART_MENTION_MEAN ? 2 * H : H;
}

int64_t rp_represent_dim(const rp_represent *spec, int64_t H) {
    int64_t dim = 0;
    for (int64_t i = 0; i < spec->parts; i++) dim += width(spec->part[i], H);
    return dim;
}

rp_reads rp_represent_reads(const rp_represent *spec) {
    rp_reads reads = {0};
    for (int64_t i = 0; i < spec->parts; i++) {
        reads.all |= spec->part[i] == RP_PART_MEAN;
        reads.first |= spec->part[i] == RP_PART_CLS;
        reads.markers |= spec->part[i] == RP_PART_ENTITY_START;
        reads.mentions |= spec->part[i] == RP_PART_MENTION_MEAN;
        reads.prompt |= spec->part[i] == RP_PART_MASK;
    }
    return reads;
}

static rp_status part_forward(rp_part part, rp_dev *dev, float *out, int64_t dim, const float *hidden,
                              const rp_inputs *in, int64_t H) {
    switch (part) {
    case RP_PART_ENTITY_START:
        RP_TRY(dev->ops->rows_gather(dev, out, dim, hidden, in->head, in->S, H));
        return dev->ops->rows_gather(dev, out + H, dim, hidden, in->tail, in->S, H);
    case RP_PART_CLS:
        return dev->ops->rows_gather(dev, out, dim, hidden, in->cu_seqlens, in->S, H);
    case RP_PART_MASK:
        return dev->ops->rows_gather(dev, out, dim, hidden, in->prompt_row, in->S, H);
    case RP_PART_MENTION_MEAN:
        RP_TRY(dev->ops->mean_forward(dev, out, dim, hidden, in->head_first, in->head_end, in->S, H));
        return dev->ops->mean_forward(dev, out + H, dim, hidden, in->tail_first, in->tail_end, in->S, H);
    default:
        return dev->ops->mean_forward(dev, out, dim, hidden, in->cu_seqlens, in->cu_seqlens + 1, in->S, H);
    }
}

static rp_status part_backward(rp_part part, rp_dev *dev, float *dhidden, const float *dout, int64_t dim,
                               const rp_inputs *in, int64_t H) {
    switch (part) {
    case RP_PART_ENTITY_START:
        RP_TRY(dev->ops->rows_scatter_add(dev, dhidden, dout, dim, in->head, in->S, H));
        return dev->ops->rows_scatter_add(dev, dhidden, dout + H, dim, in->tail, in->S, H);
    case RP_PART_CLS:
        return dev->ops->rows_scatter_add(dev, dhidden, dout, dim, in->cu_seqlens, in->S, H);
    case RP_PART_MASK:
        return dev->ops->rows_scatter_add(dev, dhidden, dout, dim, in->prompt_row, in->S, H);
    case RP_PART_MENTION_MEAN:
        RP_TRY(dev->ops->mean_backward(dev, dhidden, dout, dim, in->head_first, in->head_end, in->S, H));
        return dev->ops->mean_backward(dev, dhidden, dout + H, dim, in->tail_first, in->tail_end, in->S, H);
    default:
        return dev->ops->mean_backward(dev, dhidden, dout, dim, in->cu_seqlens, in->cu_seqlens + 1, in->S, H);
    }
}

rp_status rp_represent_forward(const rp_represent *spec, rp_dev *dev, float *out, const float *hidden,
                               const rp_inputs *inputs, int64_t H) {
    int64_t dim = rp_represent_dim(spec, H);
    for (int64_t i = 0; i < spec->parts; i++) {
        RP_TRY(part_forward(spec->part[i], dev, out, dim, hidden, inputs, H));
        out += width(spec->part[i], H);
    }
    return RP_OK;
}

rp_status rp_represent_backward(const rp_represent *spec, rp_dev *dev, float *dhidden, const float *dout,
                                const rp_inputs *inputs, int64_t H) {
    int64_t dim = rp_represent_dim(spec, H);
    for (int64_t i = 0; i < spec->parts; i++) {
        RP_TRY(part_backward(spec->part[i], dev, dhidden, dout, dim, inputs, H));
        dout += width(spec->part[i], H);
    }
    return RP_OK;
}
