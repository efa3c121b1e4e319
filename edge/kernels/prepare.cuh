// Rows and patches as the tensor cores want them: centred, rounded, padded, and how wrong that is.
//
// Both are centred on the bank's mean, which changes no distance and shortens the vectors: the
// errors of rounding, of the products and of ‖x‖² − 2·q·x all grow with their lengths. One warp
// for a row; 8 warps a block.
#pragma once

// Lengths and errors are handed on a little larger than they were computed: their own FP32 sums
// are off by at most (Wp/32 + 8)·2⁻²⁴ relatively, 8.1e-6 at Wp = 4,096.
constexpr float SLACK = 1.0f + 1e-5f;
constexpr float FP32_ROUNDING = 1.0f / 16777216.0f; // u = 2⁻²⁴

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(WHOLE_WARP, x, mask);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(WHOLE_WARP, x, mask));
    return x;
}

// To the nearest number of T. What is too large becomes the largest: the error that is measured
// afterwards then says so, where an infinity would only poison products.
template <class T> __device__ T rounded(float x);
template <> __device__ __forceinline__ Half rounded<Half>(float x) {
    return nearest_half(fminf(fmaxf(x, -65504.0f), 65504.0f));
}
template <> __device__ __forceinline__ Brain rounded<Brain>(float x) {
    constexpr float LARGEST = 3.3895313892515355e38f;
    const unsigned bits = unsigned(__float_as_int(fminf(fmaxf(x, -LARGEST), LARGEST)));
    return {static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

// Where column k of an int8 row lies: the four columns of 16 that one lane multiplies, 2t, 2t + 1,
// 2t + 8 and 2t + 9, are one word.
__device__ __forceinline__ int int8_column(int k) {
    const int in_16 = k % 16;
    return k - in_16 + in_16 % 8 / 2 * 4 + in_16 / 8 * 2 + in_16 % 2;
}

// Positive floats are ordered as their bits are; a NaN comes out on top, and nothing is certified.
__device__ __forceinline__ void raise_bounds(const PrepareRows& task, float length, float error) {
    atomicMax(reinterpret_cast<int*>(task.bounds), __float_as_int(length));
    atomicMax(reinterpret_cast<int*>(task.bounds) + 1, __float_as_int(error));
}

template <class T> __device__ void prepare_row(const PrepareRows& task, int n, int lane) {
    const float* from = task.located + (long long)n * task.width;
    T* to = static_cast<T*>(task.rows) + (long long)n * task.padded;
    float square = 0.0f, error = 0.0f;
    for (int w = lane; w < task.padded; w += 32) {
        const float x = w < task.width ? from[w] - task.mean[w] : 0.0f;
        to[w] = rounded<T>(x);
        const float off = x - widen(to[w]);
        square = fmaf(x, x, square);
        error = fmaf(off, off, error);
    }
    square = warp_sum(square);
    error = warp_sum(error);
    if (lane != 0) return;
    task.norms[n] = task.valid[n] ? square : INFINITE;
    const float length = sqrtf(square) * SLACK;
    // The subtraction of the mean is off by u of the length at most.
    if (task.valid[n])
        raise_bounds(task, length, sqrtf(error) * SLACK + FP32_ROUNDING * length);
}

// What an int8 row says: the bank that is searched, rounded to FP32 once.
__device__ __forceinline__ float unscaled(float scale, float code, float mean) {
    return fmaf(scale, code, mean);
}

// An int8 row is `unscaled` from here on, whatever it was before: its only error is that rounding.
template <> __device__ void prepare_row<Int8>(const PrepareRows& task, int n, int lane) {
    const float* from = task.located + (long long)n * task.width;
    signed char* to = static_cast<signed char*>(task.rows) + (long long)n * task.padded;
    float largest = 0.0f;
    for (int w = lane; w < task.width; w += 32)
        largest = fmaxf(largest, fabsf(from[w] - task.mean[w]));
    const float scale = warp_max(largest) / 127.0f;
    float square = 0.0f, uncentred = 0.0f;
    for (int w = lane; w < task.padded; w += 32) {
        const float mean = w < task.width ? task.mean[w] : 0.0f;
        const float x = w < task.width ? from[w] - mean : 0.0f;
        const float code = scale > 0.0f ? fminf(fmaxf(rintf(x / scale), -127.0f), 127.0f) : 0.0f;
        to[int8_column(w)] = static_cast<signed char>(code);
        // The norm is that of the row as it will be measured, not of scale · code.
        const float kept = unscaled(scale, code, mean), centred = kept - mean;
        square = fmaf(centred, centred, square);
        uncentred = fmaf(kept, kept, uncentred);
    }
    square = warp_sum(square);
    uncentred = warp_sum(uncentred);
    if (lane != 0) return;
    task.scale[n] = scale;
    task.norms[n] = task.valid[n] ? square : INFINITE;
    if (task.valid[n])
        raise_bounds(task, sqrtf(square) * SLACK, FP32_ROUNDING * sqrtf(uncentred) * SLACK);
}

template <class T> __device__ void prepare_rows(const PrepareRows& task) {
    const int n = blockIdx.x * 8 + threadIdx.x / 32;
    if (n < task.n) prepare_row<T>(task, n, threadIdx.x % 32);
}

// --- patches -------------------------------------------------------------------------------------

__device__ __forceinline__ int width_of(const Search& search) {
    return search.dimensions + (search.places ? 2 : 0);
}

// A located patch: its features, then its place.
struct Patch {
    const void* features;
    const float* place; // or null
    int dimensions, half;

    __device__ Patch(const Search& search, long long m, int half_patches)
        : dimensions(search.dimensions), half(half_patches) {
        const int bytes = half ? 2 : 4;
        features = static_cast<const char*>(search.patches) + m * dimensions * bytes;
        place = search.places ? search.places + m * 2 : nullptr;
    }
    __device__ float operator[](int w) const {
        if (w >= dimensions) return place[w - dimensions];
        return half ? widen(static_cast<const Half*>(features)[w])
                    : static_cast<const float*>(features)[w];
    }
};

template <class T> __device__ void prepare_queries(const Searches& task) {
    const Search& search = task.search[blockIdx.y];
    const int m = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (blockIdx.x == 0 && threadIdx.x == 0) search.uncertified[0] = 0;
    if (m >= task.frames * task.patches) return;
    const Patch patch(search, m, task.half_patches);
    const int width = width_of(search);
    T* to = static_cast<T*>(search.queries) + (long long)m * search.padded;
    float square = 0.0f, error = 0.0f, sound = 0.0f;
    for (int w = lane; w < search.padded; w += 32) {
        const float q = w < width ? patch[w] - search.mean[w] : 0.0f;
        to[w] = rounded<T>(q);
        const float off = q - widen(to[w]);
        square = fmaf(q, q, square);
        error = fmaf(off, off, error);
        sound += q - q; // 0, or NaN for ever once q was NaN or infinite
    }
    const float length = sqrtf(warp_sum(square)) * SLACK;
    error = sqrtf(warp_sum(error)) * SLACK + FP32_ROUNDING * length;
    sound = warp_sum(sound);
    if (lane != 0) return;
    search.query_bounds[2 * m] = length + sound;
    search.query_bounds[2 * m + 1] = error;
}
