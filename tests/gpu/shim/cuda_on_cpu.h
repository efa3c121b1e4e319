// CUDA on the CPU: enough of it to run edge/kernels as they are, and to fail where a chip might.
//
// One fiber a thread, one block at a time. A thread runs until it reaches a barrier or a warp
// instruction, so that threads interleave in one fixed order; `order` chooses among orders of
// blocks, warps and lanes, and code whose answer depends on it lacks a barrier. Shared memory is
// poisoned with NaN before each block, and a warp instruction that not all 32 lanes reach together
// is an error, as is a block that cannot go on.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "fibers.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
};

namespace on_cpu {

enum class Waits { no, for_warp, for_block, for_nothing_more };

struct Copy {
    void* to;
    const void* from;
};

using WarpInstruction = void (*)(void* const* arguments); // of the 32 lanes

struct Lane {
    Fiber fiber;
    dim3 index;
    unsigned number; // within its block
    Waits waits;
    WarpInstruction instruction;
    void* argument;
    int vote;
    std::vector<std::vector<Copy>> copies; // groups not waited for, oldest first; the last is open
};

struct Block {
    dim3 grid, size, index;
    std::vector<Lane> lanes;
    std::vector<unsigned char> stacks, shared, fixed;
    std::function<void()> body;
    Fiber scheduler;
    Lane* now;
    int vote;
    std::string failure;
};

constexpr std::size_t STACK_BYTES = 64 << 10, FIXED_BYTES = 4096, FIXED_ARRAYS = 32;
constexpr std::size_t GUARD_BYTES = 256;
constexpr unsigned char POISON = 0xff, GUARD = 0xa5; // 0xffff… is NaN in every type

inline thread_local Block* block;
inline int order = 0; // 0 ascending, 1 descending, others: shuffled by that seed

inline void hand_over(Waits waits) {
    block->now->waits = waits;
    block->scheduler.run_instead_of(block->now->fiber);
}

inline void run_thread() {
    block->body();
    hand_over(Waits::for_nothing_more);
}

// Runs `instruction` once for the warp, when all of its lanes have brought their arguments.
inline void with_warp(WarpInstruction instruction, void* argument) {
    block->now->instruction = instruction;
    block->now->argument = argument;
    hand_over(Waits::for_warp);
}

inline int with_block(int vote) {
    block->now->vote = vote;
    hand_over(Waits::for_block);
    return block->vote;
}

// An array in shared memory of fixed size, one for each place in the source.
inline void* fixed_shared(int place, std::size_t bytes) {
    if (place >= int(FIXED_ARRAYS) || bytes > FIXED_BYTES) {
        block->failure = "the CPU has no room for this array in shared memory";
        return nullptr;
    }
    return block->fixed.data() + place * FIXED_BYTES;
}

// --- the scheduler -----------------------------------------------------------------------------

// The i-th of n things in the chosen order.
inline unsigned in_order(unsigned i, unsigned n) {
    if (order == 0) return i;
    if (order == 1) return n - 1 - i;
    // n is a power of two wherever it matters; an odd step then visits everything once.
    const unsigned step = 2 * unsigned(order) + 1;
    return (n & (n - 1)) ? n - 1 - i : (i * step + unsigned(order)) & (n - 1);
}

// Runs a warp until it waits for its block or has ended; says whether anything ran.
inline bool run_warp(Block& b, unsigned begin) {
    bool ran_at_all = false;
    while (b.failure.empty()) {
        for (unsigned i = 0; i < 32; ++i) {
            Lane& lane = b.lanes[begin + in_order(i, 32)];
            if (lane.waits != Waits::no) continue;
            b.now = &lane;
            lane.fiber.run_instead_of(b.scheduler);
            ran_at_all = true;
        }
        void* arguments[32];
        unsigned waiting = 0;
        for (unsigned i = 0; i < 32; ++i) {
            arguments[i] = b.lanes[begin + i].argument;
            waiting += b.lanes[begin + i].waits == Waits::for_warp;
        }
        if (waiting == 0) return ran_at_all;
        const WarpInstruction instruction = b.lanes[begin].instruction;
        for (unsigned i = 0; i < 32; ++i)
            if (waiting != 32 || b.lanes[begin + i].instruction != instruction)
                b.failure = "not all lanes of a warp reached the same warp instruction";
        if (!b.failure.empty()) return true;
        instruction(arguments);
        for (unsigned i = 0; i < 32; ++i) b.lanes[begin + i].waits = Waits::no;
    }
    return ran_at_all;
}

inline void run_block(Block& b) {
    const unsigned threads = b.lanes.size(), warps = threads / 32;
    while (b.failure.empty()) {
        bool ran = false;
        for (unsigned w = 0; w < warps; ++w) ran |= run_warp(b, 32 * in_order(w, warps));
        unsigned ended = 0, waiting = 0;
        b.vote = 0;
        for (Lane& lane : b.lanes) {
            ended += lane.waits == Waits::for_nothing_more;
            waiting += lane.waits == Waits::for_block;
            if (lane.waits == Waits::for_block) b.vote |= lane.vote;
        }
        if (ended == threads) return;
        if (waiting && ended) b.failure = "some threads ended, others wait at a barrier";
        if (waiting + ended < threads && !ran) b.failure = "the block cannot go on";
        if (waiting == threads)
            for (Lane& lane : b.lanes) lane.waits = Waits::no;
    }
}

inline void poison(Block& b, std::size_t shared_bytes) {
    std::memset(b.shared.data(), POISON, shared_bytes);
    std::memset(b.shared.data() + shared_bytes, GUARD, GUARD_BYTES);
    std::memset(b.fixed.data(), POISON, b.fixed.size());
}

// Runs a kernel on a grid; an empty text, or what went wrong.
inline std::string launch(dim3 grid, dim3 size, std::size_t shared_bytes,
                          std::function<void()> body) {
    Block b{};
    b.grid = grid, b.size = size;
    const unsigned threads = size.x * size.y * size.z;
    if (threads == 0 || threads % 32 || threads > 1024) return "a block must be of whole warps";
    b.lanes.resize(threads);
    b.stacks.resize(threads * STACK_BYTES);
    b.shared.resize(shared_bytes + GUARD_BYTES);
    b.fixed.resize(FIXED_ARRAYS * FIXED_BYTES);
    b.body = std::move(body);
    Block* const outer = block;
    block = &b;
    const unsigned blocks = grid.x * grid.y * grid.z;
    for (unsigned i = 0; i < blocks && b.failure.empty(); ++i) {
        const unsigned n = in_order(i, blocks);
        b.index = {n % grid.x, n / grid.x % grid.y, n / grid.x / grid.y};
        poison(b, shared_bytes);
        for (unsigned t = 0; t < threads; ++t) {
            Lane& lane = b.lanes[t];
            lane.number = t;
            lane.index = {t % size.x, t / size.x % size.y, t / size.x / size.y};
            lane.waits = Waits::no;
            lane.copies.assign(1, {});
            lane.fiber.start(b.stacks.data() + t * STACK_BYTES, STACK_BYTES, run_thread);
        }
        run_block(b);
        for (std::size_t g = 0; g < GUARD_BYTES; ++g)
            if (b.shared[shared_bytes + g] != GUARD && b.failure.empty())
                b.failure = "a write past the end of shared memory";
    }
    block = outer;
    return b.failure;
}

} // namespace on_cpu

#define threadIdx (on_cpu::block->now->index)
#define blockIdx (on_cpu::block->index)
#define blockDim (on_cpu::block->size)
#define gridDim (on_cpu::block->grid)

// --- what CUDA C++ offers without PTX ----------------------------------------------------------

inline void __syncthreads() { on_cpu::with_block(0); }
inline int __syncthreads_or(int vote) { return on_cpu::with_block(vote != 0); }
inline void __trap() {
    on_cpu::block->failure = "a kernel stopped itself";
    on_cpu::hand_over(on_cpu::Waits::for_nothing_more);
}
inline void __syncwarp(unsigned = ~0u) {
    on_cpu::with_warp([](void* const*) {}, nullptr);
}

namespace on_cpu {

template <class T> struct Exchange {
    T value, result;
    int source;
};

template <class T> T exchange(T value, int source) {
    Exchange<T> mine{value, value, source};
    with_warp(
        [](void* const* arguments) {
            for (int i = 0; i < 32; ++i) {
                auto* taker = static_cast<Exchange<T>*>(arguments[i]);
                taker->result = static_cast<Exchange<T>*>(arguments[taker->source])->value;
            }
        },
        &mine);
    return mine.result;
}

inline int lane_number() { return block->now->number & 31; }

} // namespace on_cpu

template <class T> T __shfl_sync(unsigned, T value, int lane) {
    return on_cpu::exchange(value, lane & 31);
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
    return on_cpu::exchange(value, on_cpu::lane_number() ^ mask);
}
template <class T> T __shfl_up_sync(unsigned, T value, int delta) {
    const int lane = on_cpu::lane_number();
    return on_cpu::exchange(value, lane < delta ? lane : lane - delta);
}
inline unsigned __ballot_sync(unsigned, int vote) {
    struct Ballot {
        int vote;
        unsigned result;
    } mine{vote, 0};
    on_cpu::with_warp(
        [](void* const* arguments) {
            unsigned votes = 0;
            for (int i = 0; i < 32; ++i)
                votes |= unsigned(static_cast<Ballot*>(arguments[i])->vote != 0) << i;
            for (int i = 0; i < 32; ++i) static_cast<Ballot*>(arguments[i])->result = votes;
        },
        &mine);
    return mine.result;
}

// One thread runs at a time: plain code is atomic.
inline int atomicAdd(int* at, int value) {
    const int old = *at;
    *at += value;
    return old;
}
inline int atomicMax(int* at, int value) {
    const int old = *at;
    *at = old < value ? value : old;
    return old;
}
inline int __float_as_int(float x) {
    int bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __int_as_float(int bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
using std::isfinite;
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a < b ? b : a; }
