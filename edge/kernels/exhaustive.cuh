// Every row of the range by the direct form in FP32: for patches without a certificate, for chips
// without tensor cores, and for checking. Its sums are those of finish.cuh, bit for bit.
//
// One block a patch, its warps take rows in turns, up to 16 of them: a lone patch waits for memory,
// and more warps wait for more of it at once. Blocks stride over the list of patches, so that the
// grid is fixed and an empty list costs a launch and nothing more.
#pragma once

constexpr int MOST_WARPS = 16;

template <class Rows>
__device__ Entry nearest_of_warp(const Search& search, const Patch& patch, const Rows& rows,
                                 int frame, int width, int warp, int lane) {
    const int first = search.first[frame], count = search.count[frame];
    Entry nearest{INFINITE, NO_ROW};
    for (int n = warp * TOGETHER; n < count; n += int(blockDim.x) / 32 * TOGETHER) {
        int row[TOGETHER];
#pragma unroll
        for (int t = 0; t < TOGETHER; ++t) row[t] = first + min(n + t, count - 1);
        float squared[TOGETHER];
        squared_distances(squared, patch, rows, row, width, lane);
        const Entry last = from_lane(nearest, search.k - 1);
#pragma unroll
        for (int t = 0; t < TOGETHER; ++t) {
            const Entry found{squared[t], n + t};
            if (n + t < count && search.valid[row[t]] && found.before(last))
                insert(nearest, found, lane);
        }
    }
    return nearest;
}

template <class Rows>
__device__ void exhaust_patch(const Search& search, const Searches& task, long long m, float* value,
                              int* row, float* weights, int* places) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int width = width_of(search), frame = int(m / task.patches);
    const Patch patch(search, m, task.half_patches);
    const Rows rows(search, width);

    float sound = 0.0f;
    for (int w = lane; w < width; w += 32) sound += patch[w] - patch[w];
    if (!(warp_sum(sound) == 0.0f)) { // Every warp sees the same.
        if (warp == 0) refuse(search, m, lane);
        return;
    }
    Entry nearest = nearest_of_warp(search, patch, rows, frame, width, warp, lane);
    value[threadIdx.x] = nearest.value;
    row[threadIdx.x] = nearest.row;
    __syncthreads();
    if (warp == 0) {
        for (int other = 1; other < int(blockDim.x) / 32; ++other)
            for (int j = 0; j < search.k; ++j)
                insert(nearest, {value[32 * other + j], row[32 * other + j]}, lane);
        answer(search, patch, rows, m, nearest, frame, weights, places, lane);
    }
    __syncthreads(); // The lists are free for the next patch.
}

template <class Rows> __device__ void exhaustive(const Searches& task) {
    SHARED_ARRAY(float, value, 32 * MOST_WARPS);
    SHARED_ARRAY(int, row, 32 * MOST_WARPS);
    SHARED_ARRAY(float, weights, MOST_NEIGHBOURS);
    SHARED_ARRAY(int, places, MOST_NEIGHBOURS);
    const Search& search = task.search[blockIdx.y];
    const int patches = task.every_patch ? task.frames * task.patches : search.uncertified[0];
    for (int i = blockIdx.x; i < patches; i += gridDim.x) {
        const int m = task.every_patch ? i : search.uncertified[1 + i];
        exhaust_patch<Rows>(search, task, m, value, row, weights, places);
    }
}
