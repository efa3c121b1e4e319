// An anomaly map as people see it: enlarged, smoothed, enlarged again. One thread a pixel.
#pragma once

// The two source pixels around a target pixel's centre along one axis, and the share of the second.
struct Between {
    int low, high;
    float share;

    __device__ Between(int at, int source, int target) {
        const float centre = (float(at) + 0.5f) * (float(source) / float(target)) - 0.5f;
        const float inside = fminf(fmaxf(centre, 0.0f), float(source - 1));
        low = int(inside);
        high = min(low + 1, source - 1);
        share = inside - float(low);
    }
};

__device__ __forceinline__ float mixed(float low, float high, float share) {
    return fmaf(share, high - low, low);
}

__device__ void upsample_pixel(const Upsample& task) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= task.width || y >= task.height) return;
    const Between down(y, task.rows, task.height), across(x, task.columns, task.width);
    const float* upper = task.source + (long long)down.low * task.columns;
    const float* lower = task.source + (long long)down.high * task.columns;
    const float above = mixed(upper[across.low], upper[across.high], across.share);
    const float below = mixed(lower[across.low], lower[across.high], across.share);
    task.target[(long long)y * task.width + x] = mixed(above, below, down.share);
}

__device__ void blur_pixel(const Blur& task) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= task.width || y >= task.height) return;
    float sum = 0.0f;
    for (int i = -task.radius; i <= task.radius; ++i) {
        const int row = task.vertical ? min(max(y + i, 0), task.height - 1) : y;
        const int column = task.vertical ? x : min(max(x + i, 0), task.width - 1);
        sum = fmaf(task.weights[i + task.radius],
                   task.source[(long long)row * task.width + column], sum);
    }
    task.target[(long long)y * task.width + x] = sum;
}
