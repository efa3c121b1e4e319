// Kernels with one fault each, to see that the shim complains of it, and one without.
#define CUDA_ON_CPU 1
#define __CUDA_ARCH__ 900
#include "instructions_on_cpu.h"

namespace {

// Each thread hands its number to the next: the answer is 0 + 1 + … in the order of threads.
void pass_on(int* out, bool barrier) {
    SHARED_ARRAY(int, numbers, 64);
    const int t = threadIdx.x;
    numbers[t] = t;
    if (barrier) __syncthreads();
    out[t] = numbers[(t + 33) % 64];
}

void read_a_copy(const int* in, int* out, bool wait) {
    int* stage = reinterpret_cast<int*>(dynamic_shared());
    const int t = threadIdx.x;
    copy_16_async(stage + 4 * t, in + 4 * t);
    close_copies();
    if (wait) wait_for_copies<0>();
    __syncthreads();
    for (int i = 0; i < 4; ++i) out[4 * t + i] = stage[4 * (63 - t) + i];
}

} // namespace

// Runs a kernel of 64 threads; what the shim says of it.
extern "C" const char* run_faulty(int which, const int* in, int* out, int order) {
    static std::string said;
    on_cpu::order = order;
    said = on_cpu::launch({1, 1, 1}, {64, 1, 1}, 1024, [=] {
        const int t = threadIdx.x;
        switch (which) {
        case 0: return pass_on(out, true);
        case 1: return pass_on(out, false);
        case 2: return read_a_copy(in, out, true);
        case 3: return read_a_copy(in, out, false);
        case 4: // Half of a warp at a barrier of the block, the other at one of the warp.
            if (t % 32 < 16) __syncthreads();
            else __syncwarp();
            return;
        case 5: // A shuffle that some lanes have left.
            if (t % 32 < 31) out[t] = __shfl_xor_sync(WHOLE_WARP, t, 1);
            return;
        case 6: // Two different shuffles at once.
            out[t] = t % 2 ? __shfl_xor_sync(WHOLE_WARP, t, 1) : int(__ballot_sync(WHOLE_WARP, t));
            return;
        case 7: dynamic_shared()[1024] = 1; return;
        case 8: // A barrier that one warp never reaches.
            if (t < 32) __syncthreads();
            return;
        case 9: __trap(); return;
        }
    });
    on_cpu::order = 0;
    return said.c_str();
}
