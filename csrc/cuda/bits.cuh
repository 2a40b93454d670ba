/* What is computed on 16 bits between the operations of a layer: matrices of numbers rounded to bfloat16 take half the
 * memory of others, and are operands of products as they are. */
#ifndef RP_CUDA_BITS_H
#define RP_CUDA_BITS_H

#include "cuda/device.cuh"

/* -- linear.cu --------------------------------------------------------------------------------------- */

/* A dense row-major matrix of float32, or of the bits of rounded numbers, in products of bfloat16 alone. */
typedef struct rp_cuda_matrix {
    void *data;
    bool bits;
} rp_cuda_matrix;

static inline rp_cuda_matrix rp_cuda_numbers(const float *x) { return rp_cuda_matrix{(void *)x, false}; }
static inline rp_cuda_matrix rp_cuda_bits(const uint16_t *x) { return rp_cuda_matrix{(void *)x, true}; }

/* A matrix that is read as its bits, where there are any. */
static inline rp_cuda_matrix rp_cuda_either(const float *x, const uint16_t *bits) {
    return bits != nullptr ? rp_cuda_bits(bits) : rp_cuda_numbers(x);
}

/* Bits in memory that is there for as many numbers. */
static inline uint16_t *rp_cuda_bits_in(float *room) { return (uint16_t *)room; }

/* linear_forward and linear_backward of any of the two. The bias of a result in bits is rounded as well. dinp.data may
 * be NULL; it is not both in bits and added to. */
rp_status rp_cuda_multiply_forward(rp_dev *dev, rp_cuda_matrix out, rp_cuda_matrix inp, const float *weight,
                                   const float *bias, int64_t T, int64_t I, int64_t O);
rp_status rp_cuda_multiply_backward(rp_dev *dev, rp_cuda_matrix dinp, float *dweight, float *dbias, rp_cuda_matrix dout,
                                    rp_cuda_matrix inp, const float *weight, int64_t T, int64_t I, int64_t O,
                                    bool accumulate);

/* *out: inp(T,n) in bits, of numbers rounded into `room`; as it is where there is no room, or a row of bits would not
 * be a multiple of 16 bytes. dbias(n) += its column sums. */
rp_status rp_cuda_round_gradient(rp_dev *dev, rp_cuda_matrix *out, float *dbias, uint16_t *room, rp_cuda_matrix inp,
                                 int64_t T, int64_t n);

/* -- gelu.cu ----------------------------------------------------------------------------------------- */

/* gelu_forward on bits; out may alias inp. */
rp_status rp_cuda_gelu_forward_bits(uint16_t *out, const uint16_t *inp, int64_t N);
/* act(T,F) = gelu_forward(inp) once more, dinp(T,F) = gelu_backward(dact), dbias(F) += its column sums. dinp may alias
 * dact. */
rp_status rp_cuda_gelu_backward_bits(rp_dev *dev, uint16_t *act, uint16_t *dinp, float *dbias, const uint16_t *dact,
                                     const uint16_t *inp, int64_t T, int64_t F);

#endif
