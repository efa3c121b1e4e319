// Each patch's 32 best rows of a split so far, and the newcomers that wait to be merged with them.
//
// Newcomers are gathered first because one merge of 32 costs a warp about as much as eight single
// insertions, each of which would wait for the one before.
#pragma once

template <class Tile> struct Lists {
    float *best, *waiting;                        // (PATCHES, 32) ascending, (PATCHES, WAITING)
    float *bound, *norm, *scale;                  // (PATCHES,) the 32nd best; (ROWS,) of the tile
    int* waiting_count;                           // (PATCHES,)
    unsigned short *best_row, *waiting_row;       // rows counted from the split's first

    __device__ Lists(unsigned char* memory, bool scaled) {
        best = reinterpret_cast<float*>(memory);
        waiting = best + Tile::PATCHES * CANDIDATES;
        bound = waiting + Tile::PATCHES * Tile::WAITING;
        norm = bound + Tile::PATCHES;
        scale = norm + Tile::ROWS;
        waiting_count = reinterpret_cast<int*>(scale + (scaled ? Tile::ROWS : 0));
        best_row = reinterpret_cast<unsigned short*>(waiting_count + Tile::PATCHES);
        waiting_row = best_row + Tile::PATCHES * CANDIDATES;
    }

    // A patch that nobody asks about is bound by −inf: nothing ever waits for it.
    __device__ void clear(int thread, int asked) {
        for (int i = thread; i < Tile::PATCHES * CANDIDATES; i += Tile::THREADS) best[i] = INFINITE;
        for (int i = thread; i < Tile::PATCHES; i += Tile::THREADS) {
            bound[i] = i < asked ? INFINITE : -INFINITE;
            waiting_count[i] = 0;
        }
    }

    // Takes places for newcomers, and puts one in its place.
    __device__ int reserve(int patch, int newcomers) {
        return newcomers ? atomicAdd(&waiting_count[patch], newcomers) : 0;
    }
    __device__ void put(int patch, int place, float value, int row) {
        waiting[patch * Tile::WAITING + place] = value;
        waiting_row[patch * Tile::WAITING + place] = static_cast<unsigned short>(row);
    }

    // Merges what waits for a patch into its list; for one whole warp. Every value counts how many
    // come before it, which is its place: no sort, and no step that waits for another.
    __device__ void merge(int patch, int lane) {
        constexpr int FRESH = Tile::WAITING / 32;
        const int count = waiting_count[patch];
        float* list = best + patch * CANDIDATES;
        unsigned short* list_row = best_row + patch * CANDIDATES;
        const float* news = waiting + patch * Tile::WAITING;

        const float old = list[lane];
        const unsigned short old_row = list_row[lane];
        int old_place = lane;
        float fresh[FRESH];
        unsigned short fresh_row[FRESH];
        int fresh_place[FRESH];
#pragma unroll
        for (int f = 0; f < FRESH; ++f) {
            const int mine = lane + 32 * f;
            fresh[f] = mine < count ? news[mine] : INFINITE;
            fresh_row[f] = waiting_row[patch * Tile::WAITING + mine];
            // Equal values: what is in the list stays before what comes.
            fresh_place[f] = mine < count ? not_above(list, fresh[f]) : CANDIDATES;
        }
#pragma unroll 4
        for (int i = 0; i < count; ++i) {
            const float value = news[i];
            old_place += value < old;
#pragma unroll
            for (int f = 0; f < FRESH; ++f)
                fresh_place[f] += value < fresh[f] || (value == fresh[f] && i < lane + 32 * f);
        }
        __syncwarp();
        if (old_place < CANDIDATES) list[old_place] = old, list_row[old_place] = old_row;
#pragma unroll
        for (int f = 0; f < FRESH; ++f)
            if (fresh_place[f] < CANDIDATES)
                list[fresh_place[f]] = fresh[f], list_row[fresh_place[f]] = fresh_row[f];
        __syncwarp();
        if (lane == 0) {
            bound[patch] = list[CANDIDATES - 1];
            waiting_count[patch] = 0;
        }
    }

  private:
    // How many of 32 ascending values are not above one: a search by halves, in six reads.
    __device__ static int not_above(const float* list, float value) {
        int below = 0;
#pragma unroll
        for (int step = CANDIDATES / 2; step > 0; step /= 2)
            if (list[below + step - 1] <= value) below += step;
        return below + (list[below] <= value);
    }
};
