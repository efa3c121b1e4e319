// From candidates to answers: merge the splits, certify, measure again exactly, attend.
//
// For the row x of a patch q, both centred, approx + ‖q‖² differs from the true ‖q − x‖² by at most
//
//     ε = 2·[Δq·X + (Q + Δq)·Δx]                 q̂ and x̂ in place of q and x (Cauchy–Schwarz)
//       + 2·A·Wp·(Q + Δq)·(X + Δx)               the tensor cores' sums
//       + (Wp/32 + 10)·u·X² + 2u·(X² + 2·Q·X)    ‖x‖², the last subtraction and a_K + 2ε, in FP32
//
// with Q = ‖q‖, Δq = ‖q − q̂‖ of the patch, X and Δx the largest of the bank's rows, u = 2⁻²⁴.
// Tensor cores align the products of one instruction and the sum so far to the largest of them
// and may cut off below 2⁻²³ of it: with n addends a step loses at most (n + 1)·2⁻²³·Σ|q̂ᵢx̂ᵢ|.
// Steps of 16 columns have 17 addends, of 8 have 9: 18/16 and 10/8 for each column, so
// A = 1.25·2⁻²³ serves both; 1.3 takes in what is of second order. Σ|q̂ᵢx̂ᵢ| ≤ ‖q̂‖·‖x̂‖.
//
// Let a_K be the K-th least approx. The K nearest rows have approx ≤ a_K + 2ε: the K rows up to
// a_K are all within a_K + ‖q‖² + ε, so the K-th true distance is, and a row beyond a_K + 2ε is
// farther. Hence all neighbours are among the candidates unless the 32nd of some split is not
// beyond a_K + 2ε either, and may hide others like it; a list that is not full hides nothing.
// Patches that nothing is hidden from are certified. For the others exhaustive.cuh looks at every
// row.
#pragma once

constexpr float SUM_ERROR = 1.3f * 2.0f * FP32_ROUNDING;

__device__ float approx_error(const Search& search, long long m) {
    const float X = search.bounds[0], row_error = search.bounds[1];
    const float Q = search.query_bounds[2 * m], query_error = search.query_bounds[2 * m + 1];
    const float wide = float(search.padded);
    const float rounding = query_error * X + (Q + query_error) * row_error;
    const float sums = SUM_ERROR * wide * (Q + query_error) * (X + row_error);
    const float norms = (wide / 32.0f + 12.0f) * FP32_ROUNDING * X * X;
    // The factor takes in the rounding of this sum itself.
    return (2.0f * rounding + 2.0f * sums + norms + 4.0f * FP32_ROUNDING * Q * X) * SLACK;
}

__device__ Entry candidate_of(const Search& search, long long m, int split, int place) {
    const long long at = (m * search.splits + split) * CANDIDATES + place;
    const int row = search.candidates[at];
    return {search.approx[at], row < 0 ? NO_ROW : row};
}

// The best 32 of all splits, ascending, one a lane.
__device__ Entry merged(const Search& search, long long m, int lane) {
    Entry best{INFINITE, NO_ROW};
    for (int split = 0; split < search.splits; ++split) {
        // A split's list is ascending. Backwards beside ours, the lesser of each pair are the best
        // 32 of both, first rising and then falling; five exchanges sort that.
        const Entry other = candidate_of(search, m, split, CANDIDATES - 1 - lane);
        if (other.before(best)) best = other;
#pragma unroll
        for (int mask = 16; mask > 0; mask /= 2) {
            const Entry across = from_lane(best, lane ^ mask);
            const bool take = lane & mask ? best.before(across) : across.before(best);
            if (take) best = across;
        }
    }
    return best;
}

// Whether the full list of a split ends before the limit, so that there may be more.
__device__ bool hides_some(const Search& search, long long m, float limit, int lane) {
    bool hides = false;
    for (int split = lane; split < search.splits; split += 32) {
        const float last =
            search.approx[(m * search.splits + split) * CANDIDATES + CANDIDATES - 1];
        hides |= last <= limit && last < INFINITE;
    }
    return __ballot_sync(WHOLE_WARP, hides) != 0;
}

// Puts the exact squared distances of an ascending list's candidates up to the limit where they
// belong among the nearest.
template <class Rows>
__device__ void measure(Entry& nearest, const Patch& patch, const Rows& rows,
                        const Entry& candidate, float limit, int first, int width, int lane) {
    const int candidates = __popc(__ballot_sync(
        WHOLE_WARP, candidate.row != NO_ROW && candidate.value <= limit));
    for (int c = 0; c < candidates; c += TOGETHER) {
        int within[TOGETHER], row[TOGETHER];
#pragma unroll
        for (int t = 0; t < TOGETHER; ++t) {
            within[t] = __shfl_sync(WHOLE_WARP, candidate.row, min(c + t, candidates - 1));
            row[t] = first + within[t];
        }
        float squared[TOGETHER];
        squared_distances(squared, patch, rows, row, width, lane);
#pragma unroll
        for (int t = 0; t < TOGETHER; ++t)
            if (c + t < candidates) insert(nearest, {squared[t], within[t]}, lane);
    }
}

template <class Rows> __device__ void finish(const Searches& task) {
    SHARED_ARRAY(float, weights, 8 * MOST_NEIGHBOURS);
    SHARED_ARRAY(int, places, 8 * MOST_NEIGHBOURS);
    const Search& search = task.search[blockIdx.y];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int m = blockIdx.x * 8 + warp;
    if (m >= task.frames * task.patches) return;
    if (!(search.query_bounds[2 * m] == search.query_bounds[2 * m])) {
        refuse(search, m, lane);
        return;
    }
    const Entry candidate = merged(search, m, lane);
    const float error = approx_error(search, m);
    const float limit = __shfl_sync(WHOLE_WARP, candidate.value, search.k - 1) + 2.0f * error;
    if (!isfinite(error) || hides_some(search, m, limit, lane)) {
        if (lane == 0) search.uncertified[1 + atomicAdd(search.uncertified, 1)] = m;
        return;
    }
    const Patch patch(search, m, task.half_patches);
    const int width = width_of(search), frame = m / task.patches, first = search.first[frame];
    const Rows rows(search, width);
    Entry nearest{INFINITE, NO_ROW};
    const float last = __shfl_sync(WHOLE_WARP, candidate.value, CANDIDATES - 1);
    if (last > limit || last == INFINITE) {
        measure(nearest, patch, rows, candidate, limit, first, width, lane);
    } else { // More than 32 in all, though no split holds as many: a crowd spread over splits.
        for (int split = 0; split < search.splits; ++split)
            measure(nearest, patch, rows, candidate_of(search, m, split, lane), limit, first, width,
                    lane);
    }
    answer(search, patch, rows, m, nearest, frame, weights + warp * MOST_NEIGHBOURS,
           places + warp * MOST_NEIGHBOURS, lane);
}
