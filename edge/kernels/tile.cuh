// What one block of the scan looks at, by chip, and how its shared memory is laid out.
#pragma once

// A warp multiplies WarpPatches × WarpRows; the block holds Patches / WarpPatches × Rows / WarpRows
// warps. In one chunk of the epilogue each warp hands in 8 of its rows, so a patch gets at most
// CHUNK newcomers; WAITING places take them in whatever FULL have waited from before.
template <int Patches, int Rows, int WarpPatches, int WarpRows, int Stages, int Waiting>
struct Tile {
    static constexpr int PATCHES = Patches, ROWS = Rows, STAGES = Stages, WAITING = Waiting;
    static constexpr int WARP_PATCHES = WarpPatches, WARP_ROWS = WarpRows;
    static constexpr int WARPS_DOWN = Patches / WarpPatches, WARPS_ACROSS = Rows / WarpRows;
    static constexpr int WARPS = WARPS_DOWN * WARPS_ACROSS, THREADS = 32 * WARPS;
    static constexpr int CHUNK = 8 * WARPS_ACROSS, FULL = Waiting - CHUNK;
    static_assert(FULL > 0 && Waiting % 32 == 0, "a list is merged by whole warps");
};

// A 64 × 64 warp tile reads 0.03 bytes of shared memory for a multiply-add, at half the bandwidth
// that the tensor cores of these chips would need of it with 64 × 32; a block of 128 × 256 asks L2
// for 0.012 bytes a multiply-add. The others have 100 KiB of shared memory (64 on 7.5), which
// the small tile shares between two blocks to the byte: one multiplies while the other merges.
#if __CUDA_ARCH__ == 900
using ChipTile = Tile<128, 256, 64, 64, 4, 64>;
constexpr int BLOCKS_AT_ONCE = 1;
#elif __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 870
using ChipTile = Tile<128, 256, 64, 64, 3, 64>;
constexpr int BLOCKS_AT_ONCE = 1;
#else
using ChipTile = Tile<64, 128, 32, 64, 2, 32>;
constexpr int BLOCKS_AT_ONCE = 2;
#endif

// How a bank row lies in memory: T is what the tensor cores multiply.
template <class Stored> struct Format {
    using T = Stored;
    static constexpr int BYTES = 2;
    static constexpr bool SCALED = false;
};
struct Int8 {
    signed char value;
};
template <> struct Format<Int8> {
    using T = Half;
    static constexpr int BYTES = 1;
    static constexpr bool SCALED = true;
};

// Shared memory of a block: stages of patches and rows, then the lists.
template <class Tile, class Stored> struct Layout {
    static constexpr int PATCH_BYTES = Tile::PATCHES * K_STEP * 2;
    static constexpr int STAGE_BYTES = PATCH_BYTES + Tile::ROWS * K_STEP * Format<Stored>::BYTES;
    static constexpr int LISTS = Tile::STAGES * STAGE_BYTES; // where the lists begin
    static constexpr int BYTES = LISTS + Tile::PATCHES * ((CANDIDATES + Tile::WAITING) * 6 + 8) +
                                 Tile::ROWS * (Format<Stored>::SCALED ? 8 : 4);
};
