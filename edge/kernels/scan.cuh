// The sweep over the bank: for each patch and split the 32 rows of least approximate distance.
//
// A block takes PATCHES patches of one frame and one split of the frame's rows. Rows pass by in
// tiles of ROWS; of each, K_STEP columns at a time come into a ring of stages in the background
// while the tensor cores multiply the stage before. The (P, N) products live in accumulators only:
// what is worse than a patch's 32nd best is dropped there, the rest waits in shared memory.
//
// approx[n] = ‖x_n‖² − 2·q̂·x̂_n, centred, which is the squared distance but for ‖q‖² and the
// rounding that finish.cuh bounds.
#pragma once

// Where 16 bytes of a row's K_STEP columns lie in a stage. Rows of 64 bytes (halves): the eight
// rows that ldmatrix reads at once fall on all 32 banks. Rows of 32 bytes (int8): so do the 8 × 4
// words of a right fragment.
__device__ __forceinline__ int half_place(int row, int chunk) {
    return row * 64 + (chunk ^ (row >> 1 & 3)) * 16;
}
__device__ __forceinline__ int int8_place(int row, int chunk) {
    return row * 32 + (chunk ^ (row >> 2 & 1)) * 16;
}

// The rows that a block scans: a split's share of the tiles of its frame's range.
struct Share {
    int first, count; // of the bank, from the split's first row
    int offset;       // of that row within the range
};
template <class Tile>
__device__ Share share_of(const Search& search, int frame, int split) {
    const int rows = search.count[frame], tiles = (rows + Tile::ROWS - 1) / Tile::ROWS;
    const int begin = int((long long)tiles * split / search.splits) * Tile::ROWS;
    const int end = int((long long)tiles * (split + 1) / search.splits) * Tile::ROWS;
    return {search.first[frame] + begin, min(end, rows) - begin, begin};
}

// Copies stages in order: column step by column step, tile by tile. Rows and patches past the end
// repeat the last one, and are dropped later by a norm of +inf, or a bound of −inf.
template <class Tile, class Stored> struct Loader {
    static constexpr int ROW_BYTES = K_STEP * Format<Stored>::BYTES, ROW_CHUNKS = ROW_BYTES / 16;
    using Shared = Layout<Tile, Stored>;

    const unsigned char *patches, *rows; // of the first patch of the block and row of the split
    int last_patch, last_row, padded, column, tile_row, stage;

    __device__ void copy_next(unsigned char* memory, int thread) {
        if (tile_row <= last_row) {
            unsigned char* to = memory + stage * Shared::STAGE_BYTES;
#pragma unroll
            for (int turn = 0; turn < Tile::PATCHES * 4 / Tile::THREADS; ++turn) {
                const int i = thread + turn * Tile::THREADS, row = i / 4, chunk = i % 4;
                const long long from = (long long)min(row, last_patch) * padded + column;
                copy_16_async(to + half_place(row, chunk), patches + from * 2 + chunk * 16);
            }
            to += Shared::PATCH_BYTES;
#pragma unroll
            for (int turn = 0; turn < Tile::ROWS * ROW_CHUNKS / Tile::THREADS; ++turn) {
                const int i = thread + turn * Tile::THREADS;
                const int row = i / ROW_CHUNKS, chunk = i % ROW_CHUNKS;
                const long long from =
                    (long long)min(tile_row + row, last_row) * padded + column;
                const int place = Format<Stored>::SCALED ? int8_place(row, chunk)
                                                         : half_place(row, chunk);
                copy_16_async(to + place, rows + from * Format<Stored>::BYTES + chunk * 16);
            }
            column += K_STEP;
            if (column == padded) column = 0, tile_row += Tile::ROWS;
            stage = stage + 1 == Tile::STAGES ? 0 : stage + 1;
        }
        close_copies(); // Also an empty group: waiting counts groups.
    }
};

// One warp's part of a tile: sums[i][j] is the 16 × 8 product of its i-th patches and j-th rows.
template <class Tile, class Stored> struct WarpProduct {
    static constexpr int DOWN = Tile::WARP_PATCHES / 16, ACROSS = Tile::WARP_ROWS / 8;
    float sums[DOWN][ACROSS][4];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < DOWN; ++i)
#pragma unroll
            for (int j = 0; j < ACROSS; ++j)
#pragma unroll
                for (int r = 0; r < 4; ++r) sums[i][j][r] = 0.0f;
    }

    __device__ void multiply(const unsigned char* patches, const unsigned char* rows, int lane) {
#pragma unroll
        for (int step = 0; step < K_STEP / 16; ++step) {
            unsigned left[DOWN][4];
#pragma unroll
            for (int i = 0; i < DOWN; ++i)
                load_matrices(left[i],
                              patches + half_place(16 * i + lane % 16, 2 * step + lane / 16));
#pragma unroll
            for (int j = 0; j < ACROSS; j += 2) {
                unsigned right[4]; // of rows 8·j and 8·(j + 1): two registers each
                load_rows(right, rows, j, step, lane);
#pragma unroll
                for (int i = 0; i < DOWN; ++i) {
                    multiply_add(sums[i][j], left[i], right, typename Format<Stored>::T{});
                    multiply_add(sums[i][j + 1], left[i], right + 2, typename Format<Stored>::T{});
                }
            }
        }
    }

  private:
    __device__ static void load_rows(unsigned (&right)[4], const unsigned char* rows, int j,
                                     int step, int lane) {
        if constexpr (Format<Stored>::SCALED) {
            // prepare_rows_s8 has put a lane's four columns of 16 into one word.
#pragma unroll
            for (int t = 0; t < 2; ++t) {
                const unsigned char* chunk = rows + int8_place(8 * (j + t) + lane / 4, step);
                const unsigned word = *reinterpret_cast<const unsigned*>(chunk + 4 * (lane % 4));
                bytes_to_halves(word, right[2 * t], right[2 * t + 1]);
            }
        } else {
            load_matrices(right, rows + half_place(8 * j + lane / 16 * 8 + lane % 8,
                                                   2 * step + lane / 8 % 2));
        }
    }
};

// Hands the products of a tile to the lists, eight rows of each warp at a time. Of those a lane has
// two for each of its patches; places for all of them are asked for before any is used, because an
// atomic of shared memory takes as long as a hundred other instructions.
template <class Tile, class Stored>
__device__ void hand_in(const WarpProduct<Tile, Stored>& product, Lists<Tile>& lists,
                        int first_patch, int first_row, int tile_row, int warp, int lane) {
    using Product = WarpProduct<Tile, Stored>;
    constexpr int MINE = 2 * Product::DOWN; // patches of a lane
#pragma unroll
    for (int j = 0; j < Product::ACROSS; ++j) {
        const int row = first_row + 8 * j + 2 * (lane % 4); // and the next one
        const float norm[2] = {lists.norm[row], lists.norm[row + 1]};
        float factor[2] = {-2.0f, -2.0f};
        if constexpr (Format<Stored>::SCALED) {
            factor[0] *= lists.scale[row];
            factor[1] *= lists.scale[row + 1];
        }
        float value[MINE][2], bound[MINE];
        int place[MINE], newcomers[MINE];
        bool full = false;
#pragma unroll
        for (int p = 0; p < MINE; ++p) {
            bound[p] = lists.bound[first_patch + 8 * p + lane / 4];
#pragma unroll
            for (int r = 0; r < 2; ++r)
                value[p][r] = fmaf(factor[r], product.sums[p / 2][j][p % 2 * 2 + r], norm[r]);
            newcomers[p] = (value[p][0] < bound[p]) + (value[p][1] < bound[p]);
        }
#pragma unroll
        for (int p = 0; p < MINE; ++p)
            place[p] = lists.reserve(first_patch + 8 * p + lane / 4, newcomers[p]);
#pragma unroll
        for (int p = 0; p < MINE; ++p) {
            const int patch = first_patch + 8 * p + lane / 4;
            full |= place[p] + newcomers[p] > Tile::FULL;
            if (value[p][0] < bound[p])
                lists.put(patch, place[p]++, value[p][0], tile_row + row);
            if (value[p][1] < bound[p])
                lists.put(patch, place[p], value[p][1], tile_row + row + 1);
        }
        if (__syncthreads_or(full)) {
            for (int patch = warp; patch < Tile::PATCHES; patch += Tile::WARPS)
                if (lists.waiting_count[patch] > Tile::FULL) lists.merge(patch, lane);
            __syncthreads();
        }
    }
}

template <class Tile, class Stored>
__device__ void scan(const Search& search, int frame, int patches) {
    using Shared = Layout<Tile, Stored>;
    constexpr int STAGES = Tile::STAGES;
    static_assert(Tile::ROWS == Tile::THREADS, "each thread looks after the norm of one row");
    unsigned char* memory = dynamic_shared();
    Lists<Tile> lists(memory + Shared::LISTS, Format<Stored>::SCALED);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int first_patch = warp / Tile::WARPS_ACROSS * Tile::WARP_PATCHES;
    const int first_row = warp % Tile::WARPS_ACROSS * Tile::WARP_ROWS;
    const int block_patch = blockIdx.x * Tile::PATCHES, asked = patches - block_patch;
    const long long m = (long long)frame * patches + block_patch;
    const Share share = share_of<Tile>(search, frame, blockIdx.y);
    const int padded = search.padded, steps = padded / K_STEP;

    lists.clear(thread, asked);
    Loader<Tile, Stored> loader{
        static_cast<const unsigned char*>(search.queries) + m * padded * 2,
        static_cast<const unsigned char*>(search.rows) +
            (long long)share.first * padded * Format<Stored>::BYTES,
        min(asked, Tile::PATCHES) - 1, share.count - 1, padded, 0, 0, 0};
    for (int s = 0; s < STAGES - 1; ++s) loader.copy_next(memory, thread);

    WarpProduct<Tile, Stored> product;
    int stage = 0;
    for (int tile_row = 0; tile_row < share.count; tile_row += Tile::ROWS) {
        // Asked for now and stored after the products: nobody waits for global memory.
        const bool inside = tile_row + thread < share.count;
        const int row = share.first + tile_row + thread;
        const float norm = inside ? search.norms[row] : INFINITE;
        float scale = 0.0f;
        if constexpr (Format<Stored>::SCALED) scale = inside ? search.scale[row] : 0.0f;
        product.clear();
        for (int step = 0; step < steps; ++step) {
            wait_for_copies<STAGES - 2>();
            __syncthreads(); // The stage has come, and all have read the one that is filled next.
            loader.copy_next(memory, thread);
            const unsigned char* from = memory + stage * Shared::STAGE_BYTES;
            product.multiply(from + first_patch * K_STEP * 2,
                             from + Shared::PATCH_BYTES +
                                 first_row * K_STEP * Format<Stored>::BYTES,
                             lane);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        lists.norm[thread] = norm;
        if constexpr (Format<Stored>::SCALED) lists.scale[thread] = scale;
        __syncthreads();
        hand_in<Tile, Stored>(product, lists, first_patch, first_row, tile_row, warp, lane);
    }

    __syncthreads(); // A split without rows comes here straight from clear.
    for (int patch = warp; patch < min(asked, Tile::PATCHES); patch += Tile::WARPS) {
        if (lists.waiting_count[patch]) lists.merge(patch, lane);
        __syncwarp();
        const float value = lists.best[patch * CANDIDATES + lane];
        const int row = lists.best_row[patch * CANDIDATES + lane];
        const long long at = ((m + patch) * search.splits + blockIdx.y) * CANDIDATES + lane;
        search.approx[at] = value;
        search.candidates[at] = value < INFINITE ? share.offset + row : -1;
    }
}

// blockIdx: tile of patches, split, frame and search.
template <class Stored> __device__ void scan_one_of(const Searches& task) {
    const int which = blockIdx.z % task.searches;
    const Search& search = task.search[which];
    // A launch of another shape would read past the lists: the host asked for another chip's tile.
    if (blockDim.x != ChipTile::THREADS) __trap();
    if (int(blockIdx.y) < search.splits)
        scan<ChipTile, Stored>(search, blockIdx.z / task.searches, task.patches);
}
