// What CUDA C++ has no word for, in PTX. This is the one file that the tests without a GPU do not
// run: on the CPU `instructions_on_cpu.h` stands in for it, name by name.
//
// No header of the toolkit is included, so that NVRTC needs none.
#pragma once

#ifdef CUDA_ON_CPU
#include "instructions_on_cpu.h"
#else

constexpr unsigned WHOLE_WARP = 0xffffffffu;

#define SHARED_ARRAY(type, name, size) __shared__ type name[size]

__device__ __forceinline__ unsigned char* dynamic_shared() {
    extern __shared__ __align__(128) unsigned char bytes[];
    return bytes;
}

// --- numbers -----------------------------------------------------------------------------------

struct Half {
    unsigned short bits;
};
struct Brain { // bfloat16
    unsigned short bits;
};

__device__ __forceinline__ float widen(Half h) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h.bits));
    return x;
}
__device__ __forceinline__ float widen(Brain b) { return __int_as_float(int(b.bits) << 16); }

// To the nearest half, ties to even; |x| ≤ 65504.
__device__ __forceinline__ Half nearest_half(float x) {
    Half h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
    return h;
}

// Four int8 to four halves: bytes 0 and 1 to `low`, 2 and 3 to `high`. A byte b + 128 under the
// exponent of 1024 is the half 1152 + b, exactly: two permutations and two subtractions for four.
__device__ __forceinline__ void bytes_to_halves(unsigned word, unsigned& low, unsigned& high) {
    const unsigned biased = word ^ 0x80808080u, exponents = 0x64646464u, offset = 0x64806480u;
    const unsigned first = __byte_perm(biased, exponents, 0x4140);
    const unsigned second = __byte_perm(biased, exponents, 0x4342);
    asm("sub.f16x2 %0, %1, %2;" : "=r"(low) : "r"(first), "r"(offset));
    asm("sub.f16x2 %0, %1, %2;" : "=r"(high) : "r"(second), "r"(offset));
}

// --- copies that go on in the background ---------------------------------------------------------

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// 16 bytes from global to shared memory, both on 16 bytes; before capability 8.0 at once.
__device__ __forceinline__ void copy_16_async(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" //
                 ::"r"(shared_address(to)), "l"(from)
                 : "memory");
#else
    *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
#endif
}
// Ends a group of copies.
__device__ __forceinline__ void close_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits for this thread's groups but the OPEN newest; a barrier then shows them to the block.
template <int OPEN> __device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(OPEN) : "memory");
#endif
}

// --- matrices ------------------------------------------------------------------------------------

// Four 8 × 8 matrices of 16-bit elements: lane 8m + r brings the address of row r of matrix m, and
// gets of each matrix the elements 2·(lane mod 4) and the next of row lane / 4.
__device__ __forceinline__ void load_matrices(unsigned (&result)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(result[0]), "=r"(result[1]), "=r"(result[2]), "=r"(result[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// sums (16, 8) += left (16, 16) · right (16, 8) by the tensor cores, FP32 sums.
__device__ __forceinline__ void multiply_add(float (&sums)[4], const unsigned (&left)[4],
                                             const unsigned* right, Half) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]),
                   "r"(right[1]));
#else
    for (int depth = 0; depth < 2; ++depth)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                     : "r"(left[2 * depth]), "r"(left[2 * depth + 1]), "r"(right[depth]));
#endif
}

__device__ __forceinline__ void multiply_add(float (&sums)[4], const unsigned (&left)[4],
                                             const unsigned* right, Brain) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]),
                   "r"(right[1]));
#else
    __trap(); // The host does not choose bfloat16 on such a chip.
#endif
}
#endif

// By these names because NVRTC knows neither INFINITY nor NAN.
#define INFINITE __int_as_float(0x7f800000)
#define NOT_A_NUMBER __int_as_float(0x7fc00000)
