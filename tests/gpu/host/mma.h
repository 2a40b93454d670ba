/* csrc/cuda/mma.cuh's functions in plain C: lanes read each other's registers, laid out as is said there. */
#ifndef EMULATED_MMA_H
#define EMULATED_MMA_H

#define RP_CUDA_MMA

static inline float emulated_half(uint32_t pair, int upper) {
    uint32_t bits = upper ? pair & 0xFFFF0000u : pair << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

struct emulated_operands {
    uint32_t a[4], b[2];
};

static inline void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    emulated_operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const uint64_t *lanes = emulated_exchange((uint64_t)(uintptr_t)&mine);
    int lane = (int)(emulated_here->thread.x % 32);
    for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            auto of_row = (const emulated_operands *)(uintptr_t)lanes[row % 8 * 4 + k % 8 / 2];
            auto of_column = (const emulated_operands *)(uintptr_t)lanes[column * 4 + k % 8 / 2];
            float left = emulated_half(of_row->a[row / 8 + k / 8 * 2], k % 2);
            c[i] += left * emulated_half(of_column->b[k / 8], k % 2);
        }
    }
    emulated_warp_barrier(); /* `mine` is read */
}

static inline void emulated_load_matrices(uint32_t out[4], const uint16_t *row, bool transposed) {
    const uint64_t *lanes = emulated_exchange((uint64_t)(uintptr_t)row);
    int lane = (int)(emulated_here->thread.x % 32), g = lane / 4, t = lane % 4;
    if ((uintptr_t)row % 16 != 0) emulated_give_up("a matrix' row is not aligned to 16 bytes");
    for (int i = 0; i < 4; i++) {
        uint16_t pair[2];
        for (int j = 0; j < 2; j++) {
            int r = transposed ? 2 * t + j : g, c = transposed ? g : 2 * t + j;
            pair[j] = ((const uint16_t *)(uintptr_t)lanes[8 * i + r])[c];
        }
        out[i] = pair[0] | (uint32_t)pair[1] << 16;
    }
    emulated_warp_barrier(); /* the warp's loads are one instruction: no lane goes on before the last has loaded */
}

static inline void load_matrices(uint32_t out[4], const uint16_t *row) { emulated_load_matrices(out, row, false); }
static inline void load_matrices_transposed(uint32_t out[4], const uint16_t *row) {
    emulated_load_matrices(out, row, true);
}

#endif
