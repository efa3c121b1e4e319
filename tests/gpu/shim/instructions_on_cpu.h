// What edge/kernels/instructions.cuh does in PTX, on the CPU: lane by lane, as the PTX manual lays
// fragments out. A kernel that hands lanes the wrong elements gets wrong sums here as on a chip.
#pragma once
#include "cuda_on_cpu.h"

constexpr unsigned WHOLE_WARP = 0xffffffffu;

#define SHARED_ARRAY(type, name, size)                                                             \
    type* const name =                                                                             \
        static_cast<type*>(on_cpu::fixed_shared(__COUNTER__, sizeof(type) * (size)))

inline unsigned char* dynamic_shared() { return on_cpu::block->shared.data(); }

// --- numbers -----------------------------------------------------------------------------------

struct Half {
    unsigned short bits;
};
struct Brain {
    unsigned short bits;
};

inline float widen(Half h) {
    const int exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
    const float size = exponent == 0    ? std::ldexp(float(fraction), -24)
                       : exponent == 31 ? (fraction ? NAN : INFINITY)
                                        : std::ldexp(float(1024 + fraction), exponent - 25);
    return h.bits & 0x8000 ? -size : size;
}
inline float widen(Brain b) { return __int_as_float(int(unsigned(b.bits) << 16)); }

// To the nearest half, ties to even; |x| ≤ 65504.
inline Half nearest_half(float x) {
    const unsigned sign = std::signbit(x) ? 0x8000 : 0;
    if (x == 0) return {static_cast<unsigned short>(sign)};
    int exponent;
    std::frexp(x, &exponent);
    // The last place of a half is 2^(exponent − 11), and 2^−24 below the normal numbers.
    const int last = exponent - 11 < -24 ? -24 : exponent - 11;
    const float units = std::nearbyint(std::ldexp(std::fabs(x), -last));
    // A normal number's units begin at 1024, which already counts one exponent.
    return {static_cast<unsigned short>(sign | (unsigned(units) + (unsigned(last + 24) << 10)))};
}

// Four int8 to four halves: bytes 0 and 1 to `low`, 2 and 3 to `high`.
inline void bytes_to_halves(unsigned word, unsigned& low, unsigned& high) {
    unsigned halves[4];
    for (int i = 0; i < 4; ++i)
        halves[i] = nearest_half(float(static_cast<signed char>(word >> 8 * i & 255))).bits;
    low = halves[0] | halves[1] << 16;
    high = halves[2] | halves[3] << 16;
}

// --- copies that go on in the background ---------------------------------------------------------

namespace on_cpu {

// The arrays that may be read, if they were named: a copy from elsewhere is an error then.
struct Readable {
    const unsigned char* begin;
    std::size_t bytes;
};
inline std::vector<Readable> readable;

inline bool may_read_16(const void* from) {
    for (const Readable& array : readable) {
        const auto offset = std::size_t(static_cast<const unsigned char*>(from) - array.begin);
        if (offset < array.bytes && offset + 16 <= array.bytes) return true;
    }
    return readable.empty();
}

} // namespace on_cpu

// Nothing is copied before it is waited for: whoever reads too early reads poison.
inline void copy_16_async(void* to, const void* from) {
    if (!on_cpu::may_read_16(from)) on_cpu::block->failure = "a copy from beyond an array";
    on_cpu::block->now->copies.back().push_back({to, from});
}
inline void close_copies() { on_cpu::block->now->copies.emplace_back(); }
template <int OPEN> void wait_for_copies() {
    auto& groups = on_cpu::block->now->copies;
    while (int(groups.size()) - 1 > OPEN) {
        for (const on_cpu::Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
        groups.erase(groups.begin());
    }
}

// --- matrices ------------------------------------------------------------------------------------

namespace on_cpu {

inline long bank_conflicts = 0; // rows of a matrix that had to wait for others of it

struct MatrixLoad {
    const void* row;
    unsigned* result;
};

// ldmatrix.m8n8.x4.b16: lane 8m + r brings row r of matrix m; lane l gets, of each matrix, the two
// elements 2·(l mod 4) and the next of row l / 4.
inline void load_matrices(void* const* arguments) {
    for (int m = 0; m < 4; ++m) {
        unsigned places = 0; // of 16 bytes, among the 128 that shared memory reads at once
        for (int row = 0; row < 8; ++row) {
            const auto* bringer = static_cast<MatrixLoad*>(arguments[8 * m + row]);
            places |= 1u << (reinterpret_cast<std::uintptr_t>(bringer->row) / 16 % 8);
        }
        bank_conflicts += 8 - __builtin_popcount(places);
    }
    for (int lane = 0; lane < 32; ++lane)
        for (int m = 0; m < 4; ++m) {
            const auto* bringer = static_cast<MatrixLoad*>(arguments[8 * m + lane / 4]);
            std::memcpy(&static_cast<MatrixLoad*>(arguments[lane])->result[m],
                        static_cast<const unsigned char*>(bringer->row) + 4 * (lane % 4), 4);
        }
}

struct Product {
    float* sums;
    const unsigned *left, *right;
};

// Halves of the tables are looked up: 65,536 floats for each type.
template <class T> const float* widened() {
    static const std::vector<float> table = [] {
        std::vector<float> values(65536);
        for (unsigned bits = 0; bits < 65536; ++bits)
            values[bits] = widen(T{static_cast<unsigned short>(bits)});
        return values;
    }();
    return table.data();
}

// Whether sums are cut off as roughly as a tensor core may, instead of rounded; slow.
inline bool cuts_off = false;

// The terms of a sum, each cut off below the 24th bit of the largest, and so is their sum.
inline float cut_off_sum(const float* terms, int count) {
    float largest = 0;
    for (int i = 0; i < count; ++i) largest = std::fmax(largest, std::fabs(terms[i]));
    if (largest == 0 || !std::isfinite(largest)) return largest;
    const double unit = std::ldexp(1.0, std::ilogb(largest) - 23);
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += std::trunc(terms[i] / unit) * unit;
    if (sum == 0) return 0;
    const double last = std::ldexp(1.0, std::ilogb(sum) - 23);
    return float(std::trunc(sum / last) * last);
}

// mma.m16n8kD.row.col, D = 8 · DEPTHS. Of the left matrix (16, D), register r of lane l holds the
// elements k = 2·(l mod 4) and the next, of row l / 4 + 8·(r mod 2), 8·(r / 2) further; of the
// right (D, 8), register r holds k alike of column l / 4; of the sums (16, 8), register r is column
// 2·(l mod 4) + r mod 2 of row l / 4 + 8·(r / 2).
template <class T, int DEPTHS> void multiply(void* const* arguments) {
    constexpr int D = 8 * DEPTHS;
    const float* value = widened<T>();
    float left[16][D], right[D][8], sums[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const auto* p = static_cast<const Product*>(arguments[lane]);
        for (int depth = 0; depth < DEPTHS; ++depth)
            for (int pair = 0; pair < 2; ++pair) {
                const int k = 8 * depth + 2 * (lane % 4) + pair;
                for (int half = 0; half < 2; ++half)
                    left[lane / 4 + 8 * half][k] =
                        value[p->left[2 * depth + half] >> 16 * pair & 0xffff];
                right[k][lane / 4] = value[p->right[depth] >> 16 * pair & 0xffff];
            }
    }
    for (int lane = 0; lane < 32; ++lane)
        for (int r = 0; r < 4; ++r)
            sums[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2] =
                static_cast<Product*>(arguments[lane])->sums[r];
    for (int row = 0; row < 16; ++row)
        if (cuts_off) {
            for (int column = 0; column < 8; ++column) {
                float terms[D + 1];
                for (int k = 0; k < D; ++k) terms[k] = left[row][k] * right[k][column];
                terms[D] = sums[row][column];
                sums[row][column] = cut_off_sum(terms, D + 1);
            }
        } else {
            for (int k = 0; k < D; ++k)
                for (int column = 0; column < 8; ++column)
                    sums[row][column] += left[row][k] * right[k][column];
        }
    for (int lane = 0; lane < 32; ++lane)
        for (int r = 0; r < 4; ++r)
            static_cast<Product*>(arguments[lane])->sums[r] =
                sums[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2];
}

} // namespace on_cpu

inline void load_matrices(unsigned (&result)[4], const void* row) {
    on_cpu::MatrixLoad mine{row, result};
    on_cpu::with_warp(on_cpu::load_matrices, &mine);
}

template <class T>
void multiply_add(float (&sums)[4], const unsigned (&left)[4], const unsigned* right, T) {
#if __CUDA_ARCH__ >= 800
    on_cpu::Product mine{sums, left, right};
    on_cpu::with_warp(on_cpu::multiply<T, 2>, &mine);
#else
    on_cpu::Product first{sums, left, right}, second{sums, left + 2, right + 1};
    on_cpu::with_warp(on_cpu::multiply<T, 1>, &first);
    on_cpu::with_warp(on_cpu::multiply<T, 1>, &second);
#endif
}
