// Exact distances of a few rows, and what is said of a patch once its neighbours are known.
//
// The direct form Σ (q − x)² in FP32, 32 lanes with every 32nd column each, then a tree over lanes.
// Each difference is off by u = 2⁻²⁴ relatively, its square by 3u, and a sum passes at most
// ⌈W/32⌉ + 5 additions: the computed d² is the true one times 1 + δ, |δ| ≤ (⌈W/32⌉ + 8)·u. Two rows
// whose true squared distances differ by more than twice that, relatively, are found in their true
// order (1.1e-6·2 at W = 258, 6.7e-6 at W = 1,538); nearer ones may change places.
#pragma once

// FP32 rows (N, W).
struct LocatedRows {
    const float* rows;
    long long width;

    __device__ LocatedRows(const Search& search, int width)
        : rows(search.located), width(width) {}
    __device__ float at(int row, int w) const { return rows[row * width + w]; }
};

// Int8 rows, as `unscaled` says them.
struct ScaledRows {
    const signed char* rows;
    const float *scale, *mean;
    long long padded;

    __device__ ScaledRows(const Search& search, int)
        : rows(static_cast<const signed char*>(search.rows)), scale(search.scale),
          mean(search.mean), padded(search.padded) {}
    __device__ float at(int row, int w) const {
        return unscaled(scale[row], float(rows[row * padded + int8_column(w)]), mean[w]);
    }
};

constexpr int TOGETHER = 4; // rows measured at once: as many reads in flight, one read of the patch

// Squared distances of `TOGETHER` rows, the same in every lane.
template <class Rows>
__device__ void squared_distances(float (&squared)[TOGETHER], const Patch& patch, const Rows& rows,
                                  const int (&row)[TOGETHER], int width, int lane) {
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) squared[t] = 0.0f;
    for (int w = lane; w < width; w += 32) {
        const float q = patch[w];
#pragma unroll
        for (int t = 0; t < TOGETHER; ++t) {
            const float gap = q - rows.at(row[t], w);
            squared[t] = fmaf(gap, gap, squared[t]);
        }
    }
#pragma unroll
    for (int t = 0; t < TOGETHER; ++t) squared[t] = warp_sum(squared[t]);
}

// A value and its row, one of an ascending list of 32 in each lane; −1 where there is none.
struct Entry {
    float value;
    int row;

    __device__ bool before(const Entry& other) const {
        return value < other.value || (value == other.value && row < other.row);
    }
};
// Later than any row: an unsigned −1 would be as well, but rows are compared as int.
constexpr int NO_ROW = 0x7fffffff;

__device__ __forceinline__ Entry from_lane(const Entry& entry, int lane) {
    return {__shfl_sync(WHOLE_WARP, entry.value, lane), __shfl_sync(WHOLE_WARP, entry.row, lane)};
}

// Puts an entry, the same in all lanes, in its place in the list; the last falls off.
__device__ __forceinline__ void insert(Entry& list, const Entry& entry, int lane) {
    const int place = __popc(__ballot_sync(WHOLE_WARP, list.before(entry)));
    const Entry left{__shfl_up_sync(WHOLE_WARP, list.value, 1),
                     __shfl_up_sync(WHOLE_WARP, list.row, 1)};
    if (lane == place) list = entry;
    if (lane > place) list = left;
}

// Writes everything that is said of a patch, for one warp; lane j holds the j-th nearest, by its
// squared distance and row within the range. Attention is that of inspection.retrieval.attend:
// w_j = exp((d₁² − d_j²)/τ) − exp((d₁² − d_K²)/τ) + 10⁻⁶, over their sum. The weights sum to 1, so
// q − Σ w_j x_j is summed as Σ w_j (q − x_j), where nothing large cancels.
template <class Rows>
__device__ void answer(const Search& search, const Patch& patch, const Rows& rows, long long m,
                       const Entry& nearest, int frame, float* weights, int* places, int lane) {
    const int k = search.k, width = width_of(search), first = search.first[frame];
    const float temperature = search.temperature[frame];
    const bool missing = lane < k && nearest.row == NO_ROW;
    if (lane < k) {
        search.distances[m * k + lane] = sqrtf(nearest.value);
        search.neighbours[m * k + lane] = missing ? -1 : nearest.row;
    }
    if (__ballot_sync(WHOLE_WARP, missing)) {
        for (int w = lane; w < search.dimensions; w += 32)
            search.residual[m * search.dimensions + w] = NOT_A_NUMBER;
        if (lane == 0) search.evidence[m] = NOT_A_NUMBER;
        return;
    }
    const float least = __shfl_sync(WHOLE_WARP, nearest.value, 0);
    const float most = __shfl_sync(WHOLE_WARP, nearest.value, k - 1);
    float weight = expf((least - nearest.value) / temperature) -
                   expf((least - most) / temperature) + 1e-6f;
    if (lane >= k) weight = 0.0f;
    weight /= warp_sum(weight);
    __syncwarp(); // Others may still read the last patch's weights.
    if (lane < k) {
        weights[lane] = weight;
        places[lane] = first + nearest.row;
    }
    __syncwarp();
    float square = 0.0f;
    for (int w = lane; w < width; w += 32) {
        const float q = patch[w];
        float residual = 0.0f;
        for (int j = 0; j < k; ++j)
            residual = fmaf(weights[j], q - rows.at(places[j], w), residual);
        square = fmaf(residual, residual, square);
        if (w < search.dimensions) search.residual[m * search.dimensions + w] = residual;
    }
    square = warp_sum(square);
    if (lane == 0) search.evidence[m] = sqrtf(square);
}

// A patch that holds NaN or infinity has no neighbours, and no evidence that it is good.
__device__ __forceinline__ void refuse(const Search& search, long long m, int lane) {
    if (lane < search.k) {
        search.distances[m * search.k + lane] = NOT_A_NUMBER;
        search.neighbours[m * search.k + lane] = -1;
    }
    for (int w = lane; w < search.dimensions; w += 32)
        search.residual[m * search.dimensions + w] = NOT_A_NUMBER;
    if (lane == 0) search.evidence[m] = NOT_A_NUMBER;
}
