// The kernels as a library for the CPU: g++ -D__CUDA_ARCH__=900 (or 860, 750) chooses the chip.
#define CUDA_ON_CPU 1
#include "cuda_on_cpu.h"
#include "kernels.cu"

#include <map>

namespace {

using Run = std::function<std::string(const void*, dim3, dim3, std::size_t)>;

struct Kernel {
    Run run;
    std::size_t argument_bytes;
};

template <class Argument> Kernel kernel(void (*entry)(Argument)) {
    return {[entry](const void* bytes, dim3 grid, dim3 size, std::size_t shared_bytes) {
                Argument argument;
                std::memcpy(static_cast<void*>(&argument), bytes, sizeof argument);
                return on_cpu::launch(grid, size, shared_bytes, [&] { entry(argument); });
            },
            sizeof(Argument)};
}

#define NAMED(name) {#name, kernel(name)}

const std::map<std::string, Kernel> KERNELS{
    NAMED(prepare_rows_f16),    NAMED(prepare_rows_bf16),    NAMED(prepare_rows_s8),
    NAMED(prepare_queries_f16), NAMED(prepare_queries_bf16), NAMED(scan_f16),
    NAMED(scan_bf16),           NAMED(scan_s8),              NAMED(finish_f32),
    NAMED(finish_s8),           NAMED(exhaustive_f32),       NAMED(exhaustive_s8),
    NAMED(resize_pass),         NAMED(cut_view),            NAMED(upsample),
    NAMED(blur),                NAMED(judge),
};

thread_local std::string failure;

} // namespace

// Bytes of a kernel's argument, 0 if there is no such kernel.
extern "C" std::size_t kernel_argument_bytes(const char* name) {
    const auto found = KERNELS.find(name);
    return found == KERNELS.end() ? 0 : found->second.argument_bytes;
}

// Runs a kernel to its end; null, or what went wrong, valid until the next call of this thread.
extern "C" const char* kernel_launch(const char* name, const void* argument, const unsigned* grid,
                                     const unsigned* size, std::size_t shared_bytes) {
    const auto found = KERNELS.find(name);
    if (found == KERNELS.end()) return "no such kernel";
    failure = found->second.run(argument, {grid[0], grid[1], grid[2]}, {size[0], size[1], size[2]},
                                shared_bytes);
    return failure.empty() ? nullptr : failure.c_str();
}

extern "C" long bank_conflicts() { return on_cpu::bank_conflicts; }
extern "C" void set_readable(const void* const* begins, const std::size_t* bytes, int arrays) {
    on_cpu::readable.clear();
    for (int i = 0; i < arrays; ++i)
        on_cpu::readable.push_back({static_cast<const unsigned char*>(begins[i]), bytes[i]});
}
extern "C" void set_cuts_off(int cuts_off) { on_cpu::cuts_off = cuts_off; }
extern "C" void set_order(int order) { on_cpu::order = order; }

// What `tile_of` in arguments.py says in its own words.
extern "C" int scan_numbers(int which) {
    const int numbers[] = {ChipTile::PATCHES, ChipTile::ROWS, ChipTile::THREADS,
                           Layout<ChipTile, Half>::BYTES, Layout<ChipTile, Int8>::BYTES};
    return numbers[which];
}

extern "C" unsigned short half_of(float x) { return nearest_half(x).bits; }
extern "C" float of_half(unsigned short bits) { return widen(Half{bits}); }
extern "C" unsigned short brain_of(float x) { return rounded<Brain>(x).bits; }
