// What the head of a frame's product says of its patches, and how that raises their evidence: the
// enhanced representation, two layers and the fusion of inspection.scoring in one sweep, in FP32.
//
// z = [q ; q − r_n ; q − r_a ; d_n ; d_a ; ρ] is put together 32 columns at a time and never written
// to memory. A block takes 16 patches of one frame: thread t has hidden unit t mod 64 of four of
// them. The heads of all products lie side by side, so that every frame may have another one.
#pragma once

constexpr int JUDGED = 16; // patches of a block
constexpr int UNITS = 64;  // hidden units at once
constexpr int EACH = JUDGED * UNITS / 256;
constexpr int COLUMNS = 32;

// NaN stays NaN: fmaxf would call a patch good that nobody has seen.
__device__ __forceinline__ float above_zero(float value) { return value < 0.0f ? 0.0f : value; }

// Column z of the enhanced representation of patch m; 0 past its end.
__device__ float enhanced(const Judge& task, const float* density, long long m, int z) {
    const int D = task.dimensions, k = task.k;
    if (z < D) {
        const long long at = m * D + z;
        return task.half_patches ? widen(static_cast<const Half*>(task.patches)[at])
                                 : static_cast<const float*>(task.patches)[at];
    }
    if (z < 2 * D) return task.normal_residual[m * D + z - D];
    if (z < 3 * D) return task.abnormal_residual[m * D + z - 2 * D];
    const int rest = z - 3 * D;
    if (rest < k) return task.normal_distances[m * k + rest];
    if (rest < 2 * k) return task.abnormal_distances[m * k + rest - k];
    return rest == 2 * k ? *density : 0.0f;
}

__device__ void judge_patches(const Judge& task) {
    SHARED_ARRAY(float, density, JUDGED);
    SHARED_ARRAY(float, z, JUDGED * COLUMNS);
    SHARED_ARRAY(float, sums, JUDGED * UNITS);
    const int thread = threadIdx.x, unit = thread % UNITS, group = thread / UNITS * EACH;
    const int frame = blockIdx.y, first = blockIdx.x * JUDGED;
    const int count = min(JUDGED, task.per_frame - first);
    const long long m = (long long)frame * task.per_frame + first;
    const float weight = task.weight[frame];
    if (weight == 0.0f) { // The abnormal side is left out, and may not even have been searched.
        if (thread < count)
            task.scores[m + thread] = task.evidence[m + thread] * task.foreground[m + thread];
        return;
    }
    if (thread < count) {
        const float* distances = task.normal_distances + (m + thread) * task.k;
        float sum = 0.0f;
        for (int j = 0; j < task.k; ++j) sum += distances[j];
        density[thread] = distances[0] / (sum / float(task.k) + 1e-6f);
    }
    __syncthreads();
    const int length = 3 * task.dimensions + 2 * task.k + 1;
    const long long head = task.head[frame];
    float said[EACH] = {};
    for (int u = unit; u - unit < task.units; u += UNITS) {
        const bool there = u < task.units;
        const float* column = task.hidden_weight + head * length * task.units + u;
        float hidden[EACH] = {};
        for (int begin = 0; begin < length; begin += COLUMNS) {
            for (int i = thread; i < JUDGED * COLUMNS; i += 256) {
                const int patch = i / COLUMNS;
                z[i] = patch < count
                           ? enhanced(task, density + patch, m + patch, begin + i % COLUMNS)
                           : 0.0f;
            }
            __syncthreads();
            const int columns = min(COLUMNS, length - begin);
            for (int c = 0; c < columns; ++c) {
                const float factor = there ? column[(long long)(begin + c) * task.units] : 0.0f;
#pragma unroll
                for (int e = 0; e < EACH; ++e)
                    hidden[e] = fmaf(factor, z[(group + e) * COLUMNS + c], hidden[e]);
            }
            __syncthreads(); // The columns are free for the next ones.
        }
        if (there) {
            const float bias = task.hidden_bias[head * task.units + u];
            const float share = task.output_weight[head * task.units + u];
#pragma unroll
            for (int e = 0; e < EACH; ++e)
                said[e] = fmaf(share, above_zero(hidden[e] + bias), said[e]);
        }
    }
#pragma unroll
    for (int e = 0; e < EACH; ++e) sums[(group + e) * UNITS + unit] = said[e];
    __syncthreads();
    for (int patch = thread / 32; patch < count; patch += 8) {
        const int lane = thread % 32;
        float logit = warp_sum(sums[patch * UNITS + lane] + sums[patch * UNITS + 32 + lane]);
        logit += task.output_bias[head];
        const float raised = task.evidence[m + patch] * fmaf(weight, above_zero(logit), 1.0f);
        if (lane == 0) task.scores[m + patch] = raised * task.foreground[m + patch];
    }
}
